#include "certs/spiffe_bundle.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/evp.h>

#include "certs/svid.hpp"
#include "certs/trust_bundle.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using test::CaOptions;
using test::TestAuthority;
using testing::HasSubstr;

std::string base64_of(const TestAuthority& authority) {
  const auto certificates = parse_certificates_pem(authority.certificate_pem(), 1);
  unsigned char* der = nullptr;
  const int size = i2d_X509(certificates->front().get(), &der);
  std::string text(static_cast<std::size_t>(size) * 4 / 3 + 4, '\0');
  text.resize(static_cast<std::size_t>(EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), der, size)));
  OPENSSL_free(der);
  return text;
}

std::string key(std::string_view x5c, std::string_view use = "x509-svid", std::string_view type = "EC") {
  return R"({"use":")" + std::string(use) + R"(","kty":")" + std::string(type) + R"(","crv":"P-256","x":"AA","y":"AA","x5c":[")" +
         std::string(x5c) + R"("]})";
}

std::string set_of(const std::string& keys) { return R"({"spiffe_sequence":7,"spiffe_refresh_hint":300,"keys":[)" + keys + "]}"; }

std::string error_of(const std::string& json) {
  const auto bundle = TrustBundle::parse(json, *TrustDomain::parse("partner.example"));
  return bundle ? "accepted" : bundle.error().text();
}

class SpiffeBundleTest : public testing::Test {
 protected:
  TestAuthority root_ = TestAuthority::root("root");
  TestAuthority next_ = TestAuthority::root("next");
  std::string good_ = base64_of(root_);
};

TEST_F(SpiffeBundleTest, IsTheSameTrustBundleAsThatOfItsCertificates) {
  const auto bundle = TrustBundle::parse(" \n" + set_of(key(base64_of(next_)) + "," + key(good_, "x509-svid", "RSA")),
                                         *TrustDomain::parse("partner.example"));
  ASSERT_TRUE(bundle) << bundle.error().text();
  const auto pem = TrustBundle::parse(root_.certificate_pem() + next_.certificate_pem(), *TrustDomain::parse("partner.example"));
  EXPECT_EQ(bundle->authorities().size(), 2U);
  EXPECT_EQ(bundle->hash(), pem->hash());
}

TEST_F(SpiffeBundleTest, KeysOfAnotherUseOrTypeArePassedOver) {
  const std::string jwt = R"({"use":"jwt-svid","kty":"EC","kid":"a","crv":"P-256","x":"AA","y":"AA"})";
  const auto found = parse_spiffe_bundle(set_of(jwt + "," + key("?", "X509-SVID") + "," + key("?", "x509-svid", "oct") + "," + key(good_)));
  ASSERT_TRUE(found) << found.error().text();
  EXPECT_EQ(found->authorities.size(), 1U);
  EXPECT_THAT(error_of(set_of(jwt)), HasSubstr("no key for X.509-SVIDs"));
}

TEST_F(SpiffeBundleTest, WhatIsNoBundleIsRefusedWithItsPlace) {
  EXPECT_THAT(error_of("{"), HasSubstr("SPIFFE bundle:1:"));
  EXPECT_THAT(error_of("{}"), HasSubstr("keys: expected a JWK Set"));
  EXPECT_THAT(error_of(R"({"keys":{}})"), HasSubstr("keys: expected a JWK Set"));
  EXPECT_THAT(error_of(R"({"keys":[7]})"), HasSubstr("keys[0]: expected a JWK"));
  EXPECT_THAT(error_of(set_of(R"({"use":"x509-svid"})")), HasSubstr("keys[0]: kty is missing"));
  EXPECT_THAT(error_of(set_of(key(good_) + R"(,{"use":"x509-svid","kty":"EC"})")), HasSubstr("keys[1]: expected one certificate in x5c"));
  EXPECT_THAT(error_of(set_of(key(good_ + R"(",")" + good_))), HasSubstr("expected one certificate in x5c"));
  EXPECT_THAT(error_of(R"({"keys":[],"keys":[]})"), HasSubstr("keys"));
}

TEST_F(SpiffeBundleTest, Base64IsStrict) {
  for (const std::string& bad : {std::string(), std::string("="), std::string("AAA"), std::string("AA A"), std::string("A==="),
                                 std::string("-_-_"), good_ + "AAAA====", " " + good_ + "   "})
    EXPECT_THAT(error_of(set_of(key(bad))), HasSubstr("keys[0]: x5c[0]")) << bad;
}

TEST_F(SpiffeBundleTest, ALeafIsNoAuthority) {
  CaOptions options;
  options.ca = false;
  const TestAuthority leaf = TestAuthority::root("leaf", options);
  EXPECT_THAT(error_of(set_of(key(base64_of(leaf)))), HasSubstr("not a CA certificate"));
}

TEST_F(SpiffeBundleTest, HasLimits) {
  std::string keys = key(good_);
  for (std::size_t i = 0; i < max_authorities; ++i) keys += "," + key(good_);
  EXPECT_THAT(error_of(set_of(keys)), HasSubstr("more than 64"));
  EXPECT_NE(error_of("{" + std::string(max_pem_bytes, ' ') + "}"), "accepted");
  EXPECT_NE(error_of(R"({"keys":)" + std::string(1000, '[') + std::string(1000, ']') + "}"), "accepted");
}

}  // namespace
}  // namespace postern
