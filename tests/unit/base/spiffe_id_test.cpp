#include "base/spiffe_id.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

SpiffeId id(std::string_view text) { return SpiffeId::parse(text).value(); }

TEST(SpiffeId, ParsesAndTakesApart) {
  const SpiffeId parsed = id("spiffe://example.org/ns/shop/sa/default");
  EXPECT_EQ(parsed.trust_domain(), "example.org");
  EXPECT_EQ(parsed.path(), "/ns/shop/sa/default");
  EXPECT_EQ(id("spiffe://td").trust_domain(), "td");
  EXPECT_EQ(id("spiffe://td").path(), "");
  EXPECT_EQ(id("spiffe://a_b-c.9/A.-_9/...").path(), "/A.-_9/...");
  EXPECT_EQ(SpiffeId().trust_domain(), "");
  EXPECT_EQ(SpiffeId().path(), "");
}

// SPIFFE-ID sections 2.1 and 2.2.
TEST(SpiffeId, RefusesWhatTheStandardForbids) {
  for (const char* text : {"",
                           "spiffe:",
                           "spiffe://",
                           "spiffe:///path",
                           "SPIFFE://td/p",
                           "http://td/p",
                           "spiffe:/td/p",
                           "td/p",
                           "spiffe://td/",
                           "spiffe://td/a/",
                           "spiffe://td//a",
                           "spiffe://td/a//b",
                           "spiffe://td/.",
                           "spiffe://td/..",
                           "spiffe://td/a/./b",
                           "spiffe://td/a/../b",
                           "spiffe://TD/a",
                           "spiffe://td:80/a",
                           "spiffe://user@td/a",
                           "spiffe://td/a?q",
                           "spiffe://td/a#f",
                           "spiffe://td?q",
                           "spiffe://td#f",
                           "spiffe://td/%41",
                           "spiffe://t%64/a",
                           "spiffe://td/a b",
                           "spiffe://td/\xC3\xA9",
                           "spiffe://t\xC3\xA9/a",
                           " spiffe://td/a",
                           "spiffe://td/a ",
                           "spiffe://td/a\n",
                           "spiffe://[::1]/a",
                           "spiffe://td/a~b",
                           "spiffe://td/a+b"}) {
    EXPECT_FALSE(SpiffeId::parse(text)) << text;
  }
  EXPECT_FALSE(SpiffeId::parse(std::string_view("spiffe://td/a\0b", 15)));
}

TEST(SpiffeId, BoundsLengths) {
  const std::string prefix = "spiffe://td/";
  EXPECT_TRUE(SpiffeId::parse(prefix + std::string(2048 - prefix.size(), 'a')));
  EXPECT_FALSE(SpiffeId::parse(prefix + std::string(2049 - prefix.size(), 'a')));
  EXPECT_TRUE(SpiffeId::parse("spiffe://" + std::string(255, 'a') + "/p"));
  EXPECT_FALSE(SpiffeId::parse("spiffe://" + std::string(256, 'a') + "/p"));
  EXPECT_LT(SpiffeId::parse(std::string(100'000, 'x')).error().message.size(), 300U) << "a message never carries all of a hostile ID";
}

TEST(SpiffeId, NamesItsPod) {
  const SpiffeId full = id("spiffe://td/ns/shop/sa/default/pod/web-0/5d1f");
  ASSERT_TRUE(full.pod());
  EXPECT_EQ(full.pod()->ns, "shop");
  EXPECT_EQ(full.pod()->service_account, "default");
  EXPECT_EQ(full.pod()->pod, "web-0");
  EXPECT_EQ(full.pod()->uid, "5d1f");

  const SpiffeId without_uid = id("spiffe://td/ns/shop/sa/default/pod/web-0");
  ASSERT_TRUE(without_uid.pod());
  EXPECT_EQ(without_uid.pod()->pod, "web-0");
  EXPECT_EQ(without_uid.pod()->uid, "");

  const SpiffeId account = id("spiffe://td/ns/shop/sa/default");
  ASSERT_TRUE(account.pod());
  EXPECT_EQ(account.pod()->service_account, "default");
  EXPECT_EQ(account.pod()->pod, "");
}

TEST(SpiffeId, NamesNoPodByAnyOtherPath) {
  for (const char* text :
       {"spiffe://td", "spiffe://td/postern/control", "spiffe://td/ns/shop", "spiffe://td/ns/shop/sa", "spiffe://td/NS/shop/sa/default",
        "spiffe://td/x/shop/sa/default", "spiffe://td/ns/shop/x/default", "spiffe://td/ns/shop/sa/default/pod",
        "spiffe://td/ns/shop/sa/default/x/web-0", "spiffe://td/ns/shop/sa/default/pod/web-0/u/x"}) {
    EXPECT_FALSE(id(text).pod()) << text;
  }
}

TEST(TrustDomain, ParsesNamesOnly) {
  EXPECT_EQ(TrustDomain::parse("cluster.local").value().text(), "cluster.local");
  for (const char* text : {"", "Example.org", "spiffe://td", "td/", "td:1", "a b"}) EXPECT_FALSE(TrustDomain::parse(text)) << text;
}

}  // namespace
}  // namespace postern
