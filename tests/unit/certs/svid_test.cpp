#include "certs/svid.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using test::SvidOptions;
using test::TestAuthority;
using test::TestSvid;
using testing::HasSubstr;

constexpr const char* web_id = "spiffe://example.org/ns/default/sa/default/pod/web/7f1c";

const TestAuthority& authority() {
  static const TestAuthority made = TestAuthority::root("test CA");
  return made;
}

SvidOptions good() {
  SvidOptions options;
  options.uris = {web_id};
  return options;
}

std::string refusal(const TestSvid& svid) {
  const auto parsed = parse_svid(svid.chain_pem, svid.key_pem);
  return parsed ? "accepted" : parsed.error().text();
}

TEST(Svid, KnowsWhatItProves) {
  const TestSvid made = authority().issue(web_id);
  const auto svid = parse_svid(made.chain_pem, made.key_pem);
  ASSERT_TRUE(svid) << svid.error().text();
  EXPECT_EQ(svid->id.text(), web_id);
  EXPECT_EQ(svid->chain.size(), 1U);
  EXPECT_FALSE(svid->serial.empty());
  EXPECT_GT(svid->not_after, std::chrono::system_clock::now() + std::chrono::minutes(59));
  EXPECT_LT(svid->not_before, std::chrono::system_clock::now());
}

TEST(Svid, KeepsTheIntermediatesAndEndsWithTheFirstOfThem) {
  test::CaOptions options;
  options.ttl = std::chrono::minutes(10);
  const TestSvid made = authority().intermediate("issuing CA", options).issue(web_id);
  const auto svid = parse_svid(made.chain_pem, made.key_pem);
  ASSERT_TRUE(svid) << svid.error().text();
  EXPECT_EQ(svid->chain.size(), 2U);
  EXPECT_LT(svid->not_after, std::chrono::system_clock::now() + std::chrono::minutes(11));
}

TEST(Svid, AnotherKindOfNameMayStandBesideTheUri) {
  SvidOptions options = good();
  options.dns = "web.default.svc";
  EXPECT_EQ(refusal(authority().issue(options)), "accepted");
}

struct Violation {
  const char* name;
  void (*change)(SvidOptions&);
  const char* message;
};

class SvidViolation : public testing::TestWithParam<Violation> {};

TEST_P(SvidViolation, IsNamed) {
  SvidOptions options = good();
  GetParam().change(options);
  EXPECT_THAT(refusal(authority().issue(options)), HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Leaf, SvidViolation,
    testing::Values(
        Violation{"NoSan", [](SvidOptions& o) { o.uris.clear(); }, "there is no URI SAN"},
        Violation{"DnsSanOnly",
                  [](SvidOptions& o) {
                    o.uris.clear();
                    o.dns = "web";
                  },
                  "there is no URI SAN"},
        Violation{"TwoUriSans", [](SvidOptions& o) { o.uris.push_back("spiffe://example.org/other"); }, "more than one URI SAN"},
        Violation{"SameUriTwice", [](SvidOptions& o) { o.uris.push_back(web_id); }, "more than one URI SAN"},
        Violation{"HttpsUri", [](SvidOptions& o) { o.uris = {"https://example.org/web"}; }, "not a SPIFFE ID"},
        Violation{"NulInTheId", [](SvidOptions& o) { o.uris = {std::string("spiffe://example.org/a\0b", 24)}; }, "not a SPIFFE ID"},
        Violation{"NoPath", [](SvidOptions& o) { o.uris = {"spiffe://example.org"}; }, "expected a workload"},
        Violation{"CaLeaf", [](SvidOptions& o) { o.ca = true; }, "the leaf is a CA"},
        Violation{"NoKeyUsage", [](SvidOptions& o) { o.key_usage.clear(); }, "there is no keyUsage"},
        Violation{"KeyUsageNotCritical", [](SvidOptions& o) { o.key_usage = "digitalSignature"; }, "keyUsage is not critical"},
        Violation{"NoDigitalSignature", [](SvidOptions& o) { o.key_usage = "critical,keyAgreement"; }, "lacks digitalSignature"},
        Violation{"MaySignCertificates", [](SvidOptions& o) { o.key_usage = "critical,digitalSignature,keyCertSign"; }, "has keyCertSign"},
        Violation{"MaySignCrls", [](SvidOptions& o) { o.key_usage = "critical,digitalSignature,cRLSign"; }, "has cRLSign"},
        Violation{"ServerOnly", [](SvidOptions& o) { o.extended_key_usage = "serverAuth"; }, "extendedKeyUsage"},
        Violation{"ClientOnly", [](SvidOptions& o) { o.extended_key_usage = "clientAuth"; }, "extendedKeyUsage"},
        Violation{"EmailOnly", [](SvidOptions& o) { o.extended_key_usage = "emailProtection"; }, "extendedKeyUsage"}),
    [](const auto& info) { return info.param.name; });

TEST(Svid, MayDoWithoutExtendedKeyUsage) {
  SvidOptions options = good();
  options.extended_key_usage.clear();
  EXPECT_EQ(refusal(authority().issue(options)), "accepted");
}

TEST(Svid, KeyOfAnotherCertificate) {
  TestSvid svid = authority().issue(web_id);
  svid.key_pem = authority().issue(web_id).key_pem;
  EXPECT_EQ(refusal(svid), "the private key is not that of the first certificate");
}

TEST(Svid, NoKey) {
  TestSvid svid = authority().issue(web_id);
  svid.key_pem = "nothing of the kind\n";
  EXPECT_THAT(refusal(svid), HasSubstr("no usable private key"));
}

TEST(Svid, EncryptedKeyIsRefusedWithoutAskingAnybody) {
  TestSvid svid = authority().issue(web_id);
  svid.key_pem =
      "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAgx\n-----END ENCRYPTED PRIVATE KEY-----\n";
  EXPECT_THAT(refusal(svid), HasSubstr("no usable private key"));
}

TEST(Svid, ChainOutOfOrder) {
  const TestAuthority issuing = authority().intermediate("issuing CA");
  TestSvid svid = issuing.issue(web_id);
  svid.chain_pem = issuing.certificate_pem() + svid.chain_pem;
  EXPECT_THAT(refusal(svid), HasSubstr("the leaf is a CA"));
}

TEST(Svid, ChainOfStrangers) {
  TestSvid svid = authority().issue(web_id);
  svid.chain_pem += TestAuthority::root("other CA").certificate_pem();
  EXPECT_THAT(refusal(svid), HasSubstr("certificate 2: did not issue the certificate before it"));
}

TEST(Svid, ChainWithASecondLeaf) {
  TestSvid svid = authority().issue(web_id);
  svid.chain_pem += authority().issue(web_id).chain_pem;
  EXPECT_THAT(refusal(svid), HasSubstr("certificate 2: is not a CA certificate"));
}

TEST(Svid, ChainTooLong) {
  TestSvid svid = authority().issue(web_id);
  for (std::size_t i = 0; i < max_chain_length; ++i) svid.chain_pem += authority().certificate_pem();
  EXPECT_THAT(refusal(svid), HasSubstr("holds more than 8 certificates"));
}

TEST(Svid, KeyAmongTheCertificates) {
  TestSvid svid = authority().issue(web_id);
  svid.chain_pem += svid.key_pem;
  EXPECT_THAT(refusal(svid), HasSubstr("certificate chain: holds a private key"));
}

TEST(Svid, DamagedPem) {
  TestSvid svid = authority().issue(web_id);
  svid.chain_pem.insert(200, "!");
  EXPECT_THAT(refusal(svid), HasSubstr("damaged PEM"));
}

TEST(Svid, NotACertificateInside) {
  TestSvid svid = authority().issue(web_id);
  svid.chain_pem = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
  EXPECT_THAT(refusal(svid), HasSubstr("is not an X.509 certificate"));
}

TEST(Svid, InputsBeyondTheirLimits) {
  const TestSvid svid = authority().issue(web_id);
  EXPECT_THAT(refusal({std::string(max_pem_bytes + 1, ' '), svid.key_pem}), HasSubstr("at most 1048576 are read"));
  EXPECT_THAT(refusal({svid.chain_pem, std::string(max_key_bytes + 1, ' ')}), HasSubstr("the private key has 65537 bytes"));
  SvidOptions large = good();
  large.dns = std::string(max_certificate_bytes, 'a');
  EXPECT_THAT(refusal(authority().issue(large)), HasSubstr("at most 16384 are read"));
}

TEST(CertificateDer, BytesAfterTheEnd) {
  const auto parsed = parse_certificates_pem(authority().certificate_pem(), 1);
  ASSERT_TRUE(parsed);
  unsigned char* der = nullptr;
  const int size = i2d_X509(parsed->front().get(), &der);
  const std::string exact(reinterpret_cast<char*>(der), static_cast<std::size_t>(size));
  OPENSSL_free(der);
  EXPECT_TRUE(parse_certificate_der(exact));
  EXPECT_FALSE(parse_certificate_der(exact + '\0'));
  EXPECT_FALSE(parse_certificate_der(exact.substr(0, exact.size() - 1)));
}

}  // namespace
}  // namespace postern
