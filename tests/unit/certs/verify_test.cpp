#include "certs/verify.hpp"

#include <gtest/gtest.h>

#include <set>

#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using std::chrono::system_clock;
using test::CaOptions;
using test::SvidOptions;
using test::TestAuthority;

constexpr const char* web_id = "spiffe://example.org/ns/default/sa/default/pod/web/7f1c";

class VerifyPeer : public testing::Test {
 protected:
  VerifyPeer() { bundles.add(root.bundle("example.org")); }

  PeerVerification verify(const std::string& chain_pem, TlsEnd end = TlsEnd::client, SystemTime now = system_clock::now(),
                          seconds skew = seconds{0}) {
    auto chain = parse_certificates_pem(chain_pem, 32).value();
    return verify_peer(borrow(chain).get(), bundles, end, now, skew);
  }

  CertificateError error_with(void (*change)(SvidOptions&), TlsEnd end = TlsEnd::client) {
    SvidOptions options;
    options.uris = {web_id};
    change(options);
    const PeerVerification verified = verify(root.issue(options).chain_pem, end);
    EXPECT_EQ(verified.peer.has_value(), verified.error == CertificateError::none);
    return verified.error;
  }

  TestAuthority root = TestAuthority::root("test CA");
  TrustBundleSet bundles;
};

TEST_F(VerifyPeer, YieldsTheIdentity) {
  const auto verified = verify(root.issue(web_id).chain_pem);
  ASSERT_TRUE(verified.peer) << describe(verified.error) << verified.detail;
  EXPECT_EQ(verified.peer->id.text(), web_id);
  EXPECT_FALSE(verified.peer->serial.empty());
  EXPECT_GT(verified.peer->not_after, system_clock::now());
}

TEST_F(VerifyPeer, FollowsIntermediates) {
  const TestAuthority second = root.intermediate("one").intermediate("two");
  const auto verified = verify(second.issue(web_id).chain_pem);
  EXPECT_TRUE(verified.peer) << verified.detail;
}

TEST_F(VerifyPeer, TheEarliestEndOfTheChainCounts) {
  CaOptions options;
  options.ttl = seconds(600);
  const auto verified = verify(root.intermediate("one", options).issue(web_id).chain_pem);
  ASSERT_TRUE(verified.peer);
  EXPECT_LT(verified.peer->not_after, system_clock::now() + seconds(700));
}

TEST_F(VerifyPeer, ABundleMayHoldAnIntermediate) {
  const TestAuthority issuing = root.intermediate("one");
  bundles.add(issuing.bundle("example.org"));
  EXPECT_TRUE(verify(issuing.issue(web_id).chain_pem).peer);
  EXPECT_EQ(verify(root.issue(web_id).chain_pem).error, CertificateError::untrusted);
}

TEST_F(VerifyPeer, ExtendedKeyUsageMustAllowThisEnd) {
  const auto server_only = [](SvidOptions& o) { o.extended_key_usage = "serverAuth"; };
  EXPECT_EQ(error_with(server_only, TlsEnd::client), CertificateError::extended_key_usage);
  EXPECT_EQ(error_with(server_only, TlsEnd::server), CertificateError::none);
  const auto client_only = [](SvidOptions& o) { o.extended_key_usage = "clientAuth"; };
  EXPECT_EQ(error_with(client_only, TlsEnd::client), CertificateError::none);
  EXPECT_EQ(error_with(client_only, TlsEnd::server), CertificateError::extended_key_usage);
  EXPECT_EQ(error_with(client_only, TlsEnd::both), CertificateError::extended_key_usage);
}

TEST_F(VerifyPeer, AnAuthorityOfOneDomainCannotSpeakForAnother) {
  const TestAuthority partner = TestAuthority::root("partner CA");
  bundles.add(partner.bundle("partner.example"));
  EXPECT_TRUE(verify(partner.issue("spiffe://partner.example/a").chain_pem).peer);
  EXPECT_EQ(verify(partner.issue(web_id).chain_pem).error, CertificateError::untrusted);
  EXPECT_EQ(verify(root.issue("spiffe://partner.example/a").chain_pem).error, CertificateError::untrusted);
}

TEST_F(VerifyPeer, ValidityWithBoundedSkew) {
  const std::string chain = root.issue(web_id).chain_pem;  // from five minutes ago, for an hour
  const auto now = system_clock::now();
  EXPECT_EQ(verify(chain, TlsEnd::client, now + hours(1) + seconds(30)).error, CertificateError::expired);
  EXPECT_EQ(verify(chain, TlsEnd::client, now + hours(1) + seconds(30), seconds(60)).error, CertificateError::none);
  EXPECT_EQ(verify(chain, TlsEnd::client, now + hours(1) + seconds(330), hours(1)).error, CertificateError::expired);
  EXPECT_EQ(verify(chain, TlsEnd::client, now - seconds(330)).error, CertificateError::not_yet_valid);
  EXPECT_EQ(verify(chain, TlsEnd::client, now - seconds(330), seconds(60)).error, CertificateError::none);
  EXPECT_EQ(verify(chain, TlsEnd::client, now - seconds(700), hours(1)).error, CertificateError::not_yet_valid);
  EXPECT_EQ(verify(chain, TlsEnd::client, now + hours(1) + seconds(30), seconds(-60)).error, CertificateError::expired);
}

TEST_F(VerifyPeer, ExpiredIntermediate) {
  CaOptions options;
  options.not_before_offset = seconds(-7200);
  options.ttl = seconds(-3600);
  const auto verified = verify(root.intermediate("old", options).issue(web_id).chain_pem);
  EXPECT_EQ(verified.error, CertificateError::expired);
  EXPECT_EQ(verified.detail, "certificate 2 of the path");
}

TEST(CertificateErrorNames, AreDistinct) {
  std::set<std::string_view> names;
  std::set<std::string_view> sentences;
  const int last = static_cast<int>(CertificateError::bad_signature);
  for (int i = 0; i <= last; ++i) {
    names.insert(name_of(static_cast<CertificateError>(i)));
    sentences.insert(describe(static_cast<CertificateError>(i)));
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(last) + 1);
  EXPECT_EQ(sentences.size(), static_cast<std::size_t>(last) + 1);
}

}  // namespace
}  // namespace postern
