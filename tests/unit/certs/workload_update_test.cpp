#include "certs/workload_update.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/pem.h>

#include <functional>

#include "certs/workload_api_source.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using std::chrono::seconds;
using test::SvidOptions;
using test::TestAuthority;
using test::TestSvid;
using testing::HasSubstr;

std::string der_of(const std::string& certificates_pem) {
  std::string der;
  const auto certificates = parse_certificates_pem(certificates_pem, max_authorities);
  for (const X509Ptr& certificate : *certificates) {
    unsigned char* bytes = nullptr;
    const int size = i2d_X509(certificate.get(), &bytes);
    der.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
    OPENSSL_free(bytes);
  }
  return der;
}

std::string key_der_of(const std::string& key_pem) {
  const BioPtr bio(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())));
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  PKCS8_PRIV_KEY_INFO* const wrapped = EVP_PKEY2PKCS8(key.get());
  unsigned char* bytes = nullptr;
  const int size = i2d_PKCS8_PRIV_KEY_INFO(wrapped, &bytes);
  std::string der(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(size));
  OPENSSL_free(bytes);
  PKCS8_PRIV_KEY_INFO_free(wrapped);
  return der;
}

constexpr const char* web = "spiffe://example.org/ns/default/sa/web";
constexpr const char* api = "spiffe://example.org/ns/default/sa/api";

class WorkloadUpdateTest : public testing::Test {
 protected:
  WorkloadSvid svid(const SvidOptions& options, std::string hint = {}) const {
    const TestSvid made = root_.intermediate("issuer").issue(options);
    WorkloadSvid out;
    out.spiffe_id = options.uris.front();
    out.chain = der_of(made.chain_pem);
    out.key = key_der_of(made.key_pem);
    out.bundle = der_of(root_.certificate_pem());
    out.hint = std::move(hint);
    return out;
  }
  WorkloadSvid svid(const char* id, std::string hint = {}) const {
    SvidOptions options;
    options.uris = {id};
    return svid(options, std::move(hint));
  }
  WorkloadUpdate both() const {
    WorkloadUpdate update;
    update.svids.push_back(svid(web, "internal"));
    update.svids.push_back(svid(api, "external"));
    return update;
  }
  static Result<X509ContextPtr> read(const WorkloadUpdate& update, const SvidChoice& choice = {}) {
    return context_of(update, choice, std::chrono::system_clock::now());
  }
  static std::string error_of(const WorkloadUpdate& update, const SvidChoice& choice = {}) {
    const auto context = read(update, choice);
    return context ? "accepted" : context.error().text();
  }

  TestAuthority root_ = TestAuthority::root("root");
};

TEST_F(WorkloadUpdateTest, TheFirstSvidIsTakenUnlessTheChoiceSaysOtherwise) {
  const WorkloadUpdate update = both();
  const auto first = read(update);
  ASSERT_TRUE(first) << first.error().text();
  EXPECT_EQ((*first)->svid.id.text(), web);
  EXPECT_EQ((*first)->svid.chain.size(), 2U);
  EXPECT_NE((*first)->bundles.find("example.org"), nullptr);

  EXPECT_EQ((*read(update, {api, ""}))->svid.id.text(), api);
  EXPECT_EQ((*read(update, {"", "external"}))->svid.id.text(), api);
  EXPECT_EQ((*read(update, {api, "external"}))->svid.id.text(), api);
}

TEST_F(WorkloadUpdateTest, AChoiceThatNothingMeetsNamesWhatThereIs) {
  const std::string error = error_of(both(), {api, "internal"});
  EXPECT_THAT(error, HasSubstr("identity.workloadApi asks for"));
  EXPECT_THAT(error, HasSubstr("spiffe://example.org/ns/default/sa/api (hint external)"));
}

TEST_F(WorkloadUpdateTest, OfTwoSvidsWithOneHintTheFirstCounts) {
  WorkloadUpdate update = both();
  update.svids.back().hint = "internal";
  EXPECT_EQ((*read(update, {"", "internal"}))->svid.id.text(), web);
}

TEST_F(WorkloadUpdateTest, AnAnswerWithoutSvidsIsRefused) { EXPECT_THAT(error_of(WorkloadUpdate{}), HasSubstr("without an SVID")); }

TEST_F(WorkloadUpdateTest, TooManySvidsAreRefused) {
  WorkloadUpdate update;
  update.svids.resize(max_workload_svids + 1);
  EXPECT_THAT(error_of(update), HasSubstr("at most 64"));
}

TEST_F(WorkloadUpdateTest, FederatedBundlesBelongToTheirTrustDomains) {
  const TestAuthority partner = TestAuthority::root("partner");
  WorkloadUpdate update = both();
  update.federated_bundles = {{"spiffe://partner.example", der_of(partner.certificate_pem())},
                              {"spiffe://example.org", der_of(partner.certificate_pem())}};  // must not replace our own
  const auto context = read(update);
  ASSERT_TRUE(context) << context.error().text();
  ASSERT_EQ((*context)->bundles.size(), 2U);
  EXPECT_EQ((*context)->bundles.find("partner.example")->hash(), partner.bundle("partner.example").hash());
  EXPECT_EQ((*context)->bundles.find("example.org")->hash(), root_.bundle("example.org").hash());
}

TEST_F(WorkloadUpdateTest, AFederatedBundleThatIsNoneIsAnError) {
  WorkloadUpdate update = both();
  update.federated_bundles = {{"spiffe://partner.example", "rubbish"}};
  EXPECT_THAT(error_of(update), HasSubstr("federated_bundles[spiffe://partner.example]"));
  update.federated_bundles = {{"spiffe://partner.example/web", update.svids.front().bundle}};
  EXPECT_THAT(error_of(update), HasSubstr("not the SPIFFE ID of a trust domain"));
  update.federated_bundles.assign(max_federated_bundles + 1, {"spiffe://partner.example", update.svids.front().bundle});
  EXPECT_THAT(error_of(update), HasSubstr("at most 64"));
}

TEST_F(WorkloadUpdateTest, WhatAPeerWouldRefuseIsRefusedHere) {
  struct Case {
    const char* name;
    std::function<void(WorkloadSvid&)> spoil;
    const char* error;
  };
  const WorkloadSvid other = svid(api);
  const TestAuthority stranger = TestAuthority::root("stranger");
  const std::vector<Case> cases{
      {"no chain", [](WorkloadSvid& s) { s.chain.clear(); }, "holds no certificate"},
      {"bytes after the chain", [](WorkloadSvid& s) { s.chain += "x"; }, "certificate 3"},
      {"half a chain", [](WorkloadSvid& s) { s.chain.resize(s.chain.size() / 2); }, "certificate"},
      {"chain too long",
       [](WorkloadSvid& s) {
         const std::string chain = s.chain;
         for (int i = 0; i < 8; ++i) s.chain += chain;
       },
       "more than 8 certificates"},
      {"no key", [](WorkloadSvid& s) { s.key.clear(); }, "no usable private key"},
      {"bytes after the key", [](WorkloadSvid& s) { s.key += "x"; }, "no usable private key"},
      {"a key too large", [](WorkloadSvid& s) { s.key.resize(max_key_bytes + 1); }, "at most 65536"},
      {"another's key", [&](WorkloadSvid& s) { s.key = other.key; }, "not that of the first certificate"},
      {"another's name", [](WorkloadSvid& s) { s.spiffe_id = api; }, "the certificate is for spiffe://example.org/ns/default/sa/web"},
      {"no bundle", [](WorkloadSvid& s) { s.bundle.clear(); }, "trust bundle: holds no certificate"},
      {"a leaf as bundle", [&](WorkloadSvid& s) { s.bundle = s.chain; }, "not a CA certificate"},
      {"another's bundle", [&](WorkloadSvid& s) { s.bundle = der_of(stranger.certificate_pem()); }, "checked against the bundle"},
  };
  for (const Case& each : cases) {
    WorkloadUpdate update;
    update.svids.push_back(svid(web));
    each.spoil(update.svids.front());
    EXPECT_THAT(error_of(update), HasSubstr(each.error)) << each.name;
  }
}

TEST_F(WorkloadUpdateTest, AnExpiredSvidDoesNotReplaceOneThatWorks) {
  SvidOptions expired;
  expired.uris = {web};
  expired.not_before_offset = seconds(-3600);
  expired.ttl = seconds(-60);
  WorkloadUpdate update;
  update.svids.push_back(svid(expired));
  EXPECT_THAT(error_of(update), HasSubstr("has expired"));
}

TEST(WorkloadApiSocket, IsAUnixSocketsUri) {
  EXPECT_EQ(*workload_api_socket("unix:///run/spire/agent.sock"), "/run/spire/agent.sock");
  EXPECT_EQ(*workload_api_socket("unix:/run/spire/agent.sock"), "/run/spire/agent.sock");
  for (const char* bad :
       {"", "/run/spire/agent.sock", "unix:agent.sock", "unix://host/agent.sock", "unix:///a?b", "unix:///a#b", "http://x"})
    EXPECT_THAT(workload_api_socket(bad).error().text(), HasSubstr("unix:///run/spire/agent.sock")) << bad;
  EXPECT_THAT(workload_api_socket("tcp://127.0.0.1:8000").error().text(), HasSubstr("over TCP is not supported"));
  EXPECT_THAT(workload_api_socket("unix:///" + std::string(107, 'x')).error().text(), HasSubstr("at most 107"));
}

}  // namespace
}  // namespace postern
