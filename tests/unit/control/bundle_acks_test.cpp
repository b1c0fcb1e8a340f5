#include "control/bundle_acks.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

using std::chrono::seconds;

constexpr seconds ttl{60};
const SystemTime start = SystemTime(seconds(1'800'000'000));
const auto everybody = [](const WorkloadKey&, const std::string&) { return true; };

TEST(BundleAcks, CountsThoseSeenLatelyThatHaveNotAcknowledged) {
  BundleAcks acks;
  acks.saw({"shop", "web"}, "1", 7, start);
  acks.saw({"shop", "api"}, "2", 8, start);
  EXPECT_EQ(acks.lagging(8, ttl, start, everybody), 1U);
  EXPECT_EQ(acks.examples(), std::vector<std::string>{"shop/web"});
  acks.saw({"shop", "web"}, "1", 8, start + seconds(1));
  EXPECT_EQ(acks.lagging(8, ttl, start + seconds(1), everybody), 0U);
}

TEST(BundleAcks, AnAcknowledgementIsNotTakenBack) {
  BundleAcks acks;
  acks.saw({"shop", "web"}, "1", 8, start);
  acks.saw({"shop", "web"}, "1", 0, start + seconds(1));  // a request for an SVID that was on its way
  EXPECT_EQ(acks.lagging(8, ttl, start + seconds(2), everybody), 0U);
}

TEST(BundleAcks, OneThatWasNotSeenForAnSvidsLifetimeNoLongerCounts) {
  BundleAcks acks;
  acks.saw({"shop", "web"}, "1", 7, start);
  EXPECT_EQ(acks.lagging(8, ttl, start + ttl, everybody), 1U);
  EXPECT_EQ(acks.lagging(8, ttl, start + ttl + seconds(1), everybody), 0U);
  EXPECT_EQ(acks.size(), 0U);
}

TEST(BundleAcks, APodThatIsGoneNoLongerCounts) {
  BundleAcks acks;
  acks.saw({"shop", "web"}, "1", 7, start);
  const auto gone = [](const WorkloadKey& key, const std::string& uid) { return !(key.name == "web" && uid == "1"); };
  EXPECT_EQ(acks.lagging(8, ttl, start, gone), 0U);
}

}  // namespace
}  // namespace postern
