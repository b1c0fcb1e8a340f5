#include "control/cluster_ranges.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

struct ClusterRangesTest : testing::Test {
  void node(const std::string& name, const std::vector<const char*>& blocks) {
    ClusterNode& made = view.nodes[name];
    made.name = name;
    for (const char* block : blocks) made.pod_cidrs.push_back(Cidr::parse(block).value());
  }
  void service(const std::string& name, const std::vector<const char*>& addresses) {
    Service& made = view.services[{"default", name}];
    for (const char* address : addresses) made.cluster_ips.push_back(IpAddress::parse(address).value());
  }
  std::vector<std::string> ranges() const {
    std::vector<std::string> out;
    for (const Cidr& range : cluster_ranges(view)) out.push_back(range.text());
    return out;
  }
  ClusterView view;
};

TEST_F(ClusterRangesTest, NothingIsKnownOfAnEmptyCluster) { EXPECT_THAT(ranges(), IsEmpty()); }

TEST_F(ClusterRangesTest, NodesBlocksAreJoined) {
  node("a", {"10.244.0.0/24", "fd00:10:244::/64"});
  EXPECT_THAT(ranges(), ElementsAre("10.244.0.0/24", "fd00:10:244::/64"));
  node("b", {"10.244.1.0/24", "fd00:10:244:1::/64"});
  EXPECT_THAT(ranges(), ElementsAre("10.244.0.0/23", "fd00:10:244::/63"));
  node("c", {"10.244.200.0/24"});
  EXPECT_THAT(ranges(), ElementsAre("10.244.0.0/16", "fd00:10:244::/63"));
}

TEST_F(ClusterRangesTest, ServicesAreCoveredAndNothingFarFromThem) {
  service("kubernetes", {"10.96.0.1"});
  EXPECT_THAT(ranges(), ElementsAre("10.96.0.1/32"));
  service("dns", {"10.96.0.10"});
  EXPECT_THAT(ranges(), ElementsAre("10.96.0.0/28"));
  service("far", {"10.100.7.7"});
  EXPECT_THAT(ranges(), ElementsAre("10.96.0.0/28", "10.100.7.7/32"));
  service("headless", {});
  EXPECT_EQ(ranges().size(), 2U);
}

TEST_F(ClusterRangesTest, AWideBlockHoldsWhatLiesInIt) {
  node("a", {"10.0.0.0/8"});
  node("b", {"10.244.0.0/24"});
  service("kubernetes", {"10.96.0.1"});
  EXPECT_THAT(ranges(), ElementsAre("10.0.0.0/8"));
}

}  // namespace
}  // namespace postern
