#include "certs/trust_bundle.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "certs/svid.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using test::CaOptions;
using test::TestAuthority;
using testing::HasSubstr;

TrustDomain domain(const char* text = "example.org") { return TrustDomain::parse(text).value(); }

TEST(TrustBundle, OrderAndRepetitionDoNotCount) {
  const std::string one = TestAuthority::root("one").certificate_pem();
  const std::string two = TestAuthority::root("two").certificate_pem();
  const auto forward = TrustBundle::parse(one + two, domain());
  const auto backward = TrustBundle::parse("text before\n" + two + one + two, domain());
  ASSERT_TRUE(forward && backward);
  EXPECT_EQ(forward->authorities().size(), 2U);
  EXPECT_EQ(backward->authorities().size(), 2U);
  EXPECT_EQ(forward->hash(), backward->hash());
}

TEST(TrustBundle, HashIsOfTheDomainAndTheAuthorities) {
  const std::string one = TestAuthority::root("one").certificate_pem();
  const std::string two = TestAuthority::root("two").certificate_pem();
  const auto base = TrustBundle::parse(one, domain()).value().hash();
  EXPECT_NE(base, TrustBundle::parse(two, domain()).value().hash());
  EXPECT_NE(base, TrustBundle::parse(one + two, domain()).value().hash());
  EXPECT_NE(base, TrustBundle::parse(one, domain("example.com")).value().hash());
}

TEST(TrustBundle, RefusesWhatMayNotSign) {
  CaOptions no_ca;
  no_ca.ca = false;
  EXPECT_THAT(TrustBundle::parse(TestAuthority::root("x", no_ca).certificate_pem(), domain()).error().message,
              HasSubstr("certificate 1 is not a CA"));
  CaOptions no_sign;
  no_sign.key_usage = "critical,cRLSign";
  EXPECT_THAT(TrustBundle::parse(TestAuthority::root("x", no_sign).certificate_pem(), domain()).error().message, HasSubstr("may sign"));
  const std::string leaf = TestAuthority::root("x").issue("spiffe://example.org/a").chain_pem;
  EXPECT_FALSE(TrustBundle::parse(leaf, domain()));
}

TEST(TrustBundle, RefusesNothingAndTooMuch) {
  EXPECT_THAT(TrustBundle::parse("", domain()).error().message, HasSubstr("holds no certificate"));
  const std::string one = TestAuthority::root("one").certificate_pem();
  std::string many;
  for (std::size_t i = 0; i <= max_authorities; ++i) many += one;
  EXPECT_THAT(TrustBundle::parse(many, domain()).error().message, HasSubstr("more than 64"));
}

TEST(TrustBundleSet, FindsByDomainAndReplaces) {
  TrustBundleSet set;
  const TestAuthority one = TestAuthority::root("one");
  const TestAuthority two = TestAuthority::root("two");
  set.add(one.bundle("example.org"));
  const ContentHash before = set.hash();
  set.add(two.bundle("example.org"));
  EXPECT_EQ(set.size(), 1U);
  EXPECT_NE(set.hash(), before);
  EXPECT_NE(set.find("example.org"), nullptr);
  EXPECT_EQ(set.find("example.com"), nullptr);
}

}  // namespace
}  // namespace postern
