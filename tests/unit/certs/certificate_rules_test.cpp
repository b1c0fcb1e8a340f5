// Every rule of docs/identity-verification.md, broken by a generated certificate: by its own name, and no other rule with it.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>

#include "certs/verify.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using std::chrono::seconds;
using std::chrono::system_clock;
using test::CaOptions;
using test::SvidOptions;
using test::TestAuthority;
using enum CertificateError;

constexpr const char* web_id = "spiffe://example.org/ns/default/sa/default/pod/web/7f1c";

const TestAuthority& root() {
  static const TestAuthority made = TestAuthority::root("test CA");
  return made;
}

TrustBundleSet bundles_of(const TestAuthority& authority) {
  TrustBundleSet bundles;
  bundles.add(authority.bundle("example.org"));
  return bundles;
}

SvidOptions good() {
  SvidOptions options;
  options.uris = {web_id};
  return options;
}

std::string leaf(void (*change)(SvidOptions&)) {
  SvidOptions options = good();
  change(options);
  return root().issue(options).chain_pem;
}

std::string id(const std::string& uri) {
  SvidOptions options;
  options.uris = {uri};
  return root().issue(options).chain_pem;
}

std::string below(void (*change)(CaOptions&)) {
  CaOptions options;
  change(options);
  return root().intermediate("issuing CA", options).issue(web_id).chain_pem;
}

std::string with_a_damaged_signature() {
  auto chain = parse_certificates_pem(root().issue(web_id).chain_pem, 1).value();
  unsigned char* der = nullptr;
  const int size = i2d_X509(chain.front().get(), &der);
  der[size - 1] ^= 1U;
  std::string pem(4096, '\0');
  const auto damaged = parse_certificate_der({reinterpret_cast<char*>(der), static_cast<std::size_t>(size)}).value().release();
  OPENSSL_free(der);
  const X509Ptr owned(damaged);
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(bio.get(), damaged);
  pem.resize(static_cast<std::size_t>(BIO_read(bio.get(), pem.data(), static_cast<int>(pem.size()))));
  return pem;
}

struct Violation {
  const char* name;
  CertificateError error;
  std::string (*chain)();
};

const Violation violations[] = {
    {"PathLengthOnALeaf", malformed, [] { return leaf([](SvidOptions& o) { o.basic_constraints = "critical,CA:FALSE,pathlen:3"; }); }},
    {"SubjectAltNameTwice", malformed, [] { return leaf([](SvidOptions& o) { o.names_twice = true; }); }},
    {"NineCertificates", too_large,
     [] {
       std::string chain = root().issue(web_id).chain_pem;
       for (std::size_t i = 0; i < max_chain_length; ++i) chain += root().certificate_pem();
       return chain;
     }},
    {"LeafIsACa", leaf_is_ca, [] { return leaf([](SvidOptions& o) { o.ca = true; }); }},
    {"NoKeyUsage", key_usage_missing, [] { return leaf([](SvidOptions& o) { o.key_usage.clear(); }); }},
    {"KeyCertSign", may_sign_certificates,
     [] { return leaf([](SvidOptions& o) { o.key_usage = "critical,digitalSignature,keyCertSign"; }); }},
    {"CrlSign", may_sign_crls, [] { return leaf([](SvidOptions& o) { o.key_usage = "critical,digitalSignature,cRLSign"; }); }},
    {"NoDigitalSignature", no_digital_signature, [] { return leaf([](SvidOptions& o) { o.key_usage = "critical,keyAgreement"; }); }},
    {"KeyUsageNotCritical", key_usage_not_critical, [] { return leaf([](SvidOptions& o) { o.key_usage = "digitalSignature"; }); }},
    {"ServerAuthOnlyAtAClient", extended_key_usage, [] { return leaf([](SvidOptions& o) { o.extended_key_usage = "serverAuth"; }); }},
    {"EmailProtectionOnly", extended_key_usage, [] { return leaf([](SvidOptions& o) { o.extended_key_usage = "emailProtection"; }); }},
    {"NoNameAtAll", no_uri_san, [] { return leaf([](SvidOptions& o) { o.uris.clear(); }); }},
    {"DnsNameOnly", no_uri_san,
     [] {
       return leaf([](SvidOptions& o) {
         o.uris.clear();
         o.dns = "web";
       });
     }},
    {"TwoUris", several_uri_sans, [] { return leaf([](SvidOptions& o) { o.uris.push_back("spiffe://example.org/x"); }); }},
    {"TheSameUriTwice", several_uri_sans, [] { return leaf([](SvidOptions& o) { o.uris.push_back(web_id); }); }},
    {"AnotherUriBesideTheId", several_uri_sans, [] { return leaf([](SvidOptions& o) { o.uris.push_back("https://example.org/"); }); }},
    {"NoSubjectAndNamesNotCritical", san_not_critical, [] { return leaf([](SvidOptions& o) { o.subject = false; }); }},
    {"IdOf2049Bytes", spiffe_id_too_long, [] { return id("spiffe://example.org/" + std::string(2049 - 21, 'a')); }},
    {"TrustDomainOf256Bytes", spiffe_id_too_long, [] { return id("spiffe://" + std::string(256, 'a') + "/web"); }},
    {"HttpsScheme", not_a_spiffe_id, [] { return id("https://example.org/web"); }},
    {"UpperCaseScheme", not_a_spiffe_id, [] { return id("SPIFFE://example.org/web"); }},
    {"NoTrustDomain", not_a_spiffe_id, [] { return id("spiffe:///web"); }},
    {"UpperCaseTrustDomain", not_a_spiffe_id, [] { return id("spiffe://Example.org/web"); }},
    {"Port", not_a_spiffe_id, [] { return id("spiffe://example.org:8443/web"); }},
    {"UserInfo", not_a_spiffe_id, [] { return id("spiffe://web@example.org/web"); }},
    {"Query", not_a_spiffe_id, [] { return id("spiffe://example.org/web?admin=1"); }},
    {"Fragment", not_a_spiffe_id, [] { return id("spiffe://example.org/web#admin"); }},
    {"PercentEncoding", not_a_spiffe_id, [] { return id("spiffe://example.org/w%65b"); }},
    {"EmptySegment", not_a_spiffe_id, [] { return id("spiffe://example.org/ns//web"); }},
    {"TrailingSlash", not_a_spiffe_id, [] { return id("spiffe://example.org/web/"); }},
    {"DotSegment", not_a_spiffe_id, [] { return id("spiffe://example.org/./web"); }},
    {"DotDotSegment", not_a_spiffe_id, [] { return id("spiffe://example.org/ns/../web"); }},
    {"NulInTheId", not_a_spiffe_id, [] { return id(std::string("spiffe://example.org/a\0b", 24)); }},
    {"NotAscii", not_a_spiffe_id,
     [] {
       return id(
           "spiffe://example.org/w\xc3\xa9"
           "b");
     }},
    {"NoPath", no_workload_path, [] { return id("spiffe://example.org"); }},
    {"TrustDomainWithoutABundle", unknown_trust_domain, [] { return id("spiffe://example.com/web"); }},
    {"AnotherAuthority", untrusted, [] { return TestAuthority::root("other CA").issue(web_id).chain_pem; }},
    {"AnotherAuthorityOfTheSameName", untrusted, [] { return TestAuthority::root("test CA").issue(web_id).chain_pem; }},
    {"AnotherAuthorityThatBringsItsRoot", untrusted,
     [] {
       const TestAuthority other = TestAuthority::root("other CA");
       return other.issue(web_id).chain_pem + other.certificate_pem();
     }},
    {"IssuedByALeaf", issuer_not_ca,
     [] {
       const test::TestSvid signer = root().issue(web_id);
       return TestAuthority::load(signer.chain_pem, signer.key_pem).issue("spiffe://example.org/admin").chain_pem;
     }},
    {"IntermediateIsNoCa", issuer_not_ca, [] { return below([](CaOptions& o) { o.ca = false; }); }},
    {"IntermediateWithoutKeyCertSign", issuer_may_not_sign,
     [] { return below([](CaOptions& o) { o.key_usage = "critical,digitalSignature"; }); }},
    {"IntermediateWithAPath", issuer_has_path, [] { return below([](CaOptions& o) { o.uri = "spiffe://example.org/ca"; }); }},
    {"IntermediateWithAMalformedId", issuer_has_path, [] { return below([](CaOptions& o) { o.uri = "spiffe://Example.org"; }); }},
    {"PathLengthExceeded", path_too_long,
     [] {
       CaOptions last;
       last.path_length = 0;
       return root().intermediate("one", last).intermediate("two").issue(web_id).chain_pem;
     }},
    {"OutsideThePermittedNames", name_constraints,
     [] { return below([](CaOptions& o) { o.name_constraints = "critical,permitted;URI:example.com"; }); }},
    {"WithinTheExcludedNames", name_constraints,
     [] { return below([](CaOptions& o) { o.name_constraints = "critical,excluded;URI:example.org"; }); }},
    {"UnknownCriticalExtension", unknown_critical_extension, [] { return leaf([](SvidOptions& o) { o.unknown_critical = true; }); }},
    {"RsaOf1024Bits", weak_key, [] { return leaf([](SvidOptions& o) { o.rsa_bits = 1024; }); }},
    {"SignedWithSha1", weak_signature, [] { return leaf([](SvidOptions& o) { o.digest = EVP_sha1(); }); }},
    {"NotYetValid", not_yet_valid, [] { return leaf([](SvidOptions& o) { o.not_before_offset = seconds(3000); }); }},
    {"Expired", expired,
     [] {
       return leaf([](SvidOptions& o) {
         o.not_before_offset = seconds(-7200);
         o.ttl = seconds(-3600);
       });
     }},
    {"IntermediateExpired", expired,
     [] {
       return below([](CaOptions& o) {
         o.not_before_offset = seconds(-7200);
         o.ttl = seconds(-3600);
       });
     }},
    {"DamagedSignature", bad_signature, with_a_damaged_signature},
};

std::vector<X509Ptr> read(const std::string& pem) { return parse_certificates_pem(pem, 32).value(); }

std::set<CertificateError> broken(const std::vector<RuleResult>& results) {
  std::set<CertificateError> out;
  for (const RuleResult& result : results) {
    if (result.outcome == RuleResult::Outcome::failed) out.insert(result.rule);
  }
  return out;
}

class CertificateRules : public testing::TestWithParam<Violation> {};

TEST_P(CertificateRules, IsRefusedByItsName) {
  const auto chain = read(GetParam().chain());
  const TrustBundleSet bundles = bundles_of(root());
  const auto verified = verify_peer(borrow(chain).get(), bundles, TlsEnd::client, system_clock::now(), seconds{0});
  EXPECT_FALSE(verified.peer);
  EXPECT_EQ(name_of(verified.error), name_of(GetParam().error)) << verified.detail;
}

TEST_P(CertificateRules, IsExplainedByItsNameAlone) {
  const auto chain = read(GetParam().chain());
  const TrustBundleSet bundles = bundles_of(root());
  std::set<CertificateError> found = broken(explain_svid(chain, &bundles, TlsEnd::client, system_clock::now(), seconds{0}));
  found.erase(chain_order);  // a chain with a stranger in it is out of order, too
  std::set<CertificateError> expected{GetParam().error};
  if (GetParam().error == issuer_not_ca) {  // a leaf that issues breaks every rule of an issuer
    found.erase(issuer_may_not_sign);
    found.erase(issuer_has_path);
  }
  EXPECT_EQ(found, expected);
}

INSTANTIATE_TEST_SUITE_P(Broken, CertificateRules, testing::ValuesIn(violations), [](const auto& info) { return info.param.name; });

TEST(CertificateRuleTable, HasAViolationForEveryRule) {
  std::set<CertificateError> shown{not_presented, chain_order};  // below
  for (const Violation& violation : violations) shown.insert(violation.error);
  for (const CertificateRule& rule : certificate_rules()) EXPECT_TRUE(shown.contains(rule.error)) << rule.name;
}

TEST(CertificateRuleTable, IsThatOfTheDocumentation) {
  std::ifstream file(std::string(POSTERN_SOURCE_DIR) + "/docs/identity-verification.md");
  std::stringstream text;
  text << file.rdbuf();
  const auto row_of = [&](const CertificateRule& rule) {
    const std::string begin = "| `" + std::string(rule.name) + "` | " + std::string(rule.section) + " | " + std::string(rule.rule) + " | ";
    const auto at = text.str().find(begin);
    EXPECT_NE(at, std::string::npos) << "missing row: " << begin;
    return at == std::string::npos ? std::string() : text.str().substr(at, text.str().find('\n', at) - at);
  };
  for (const CertificateRule& rule : certificate_rules()) {
    const std::string row = row_of(rule);
    for (const Violation& violation : violations) {
      if (violation.error != rule.error) continue;
      EXPECT_NE(row.find("`" + std::string(violation.name) + "`"), std::string::npos) << violation.name << " is not in " << row;
    }
  }
}

TEST(CertificateRuleTable, NothingPresented) {
  const TrustBundleSet bundles = bundles_of(root());
  EXPECT_EQ(verify_peer(nullptr, bundles, TlsEnd::client, system_clock::now(), seconds{0}).error, not_presented);
  EXPECT_EQ(broken(explain_svid({}, &bundles, TlsEnd::client, system_clock::now(), seconds{0})), std::set{not_presented});
}

TEST(CertificateRuleTable, OurOwnChainMustBeInOrderAndAPeersNeedNot) {
  const TestAuthority two = root().intermediate("one").intermediate("two");
  const test::TestSvid svid = two.issue(web_id);
  auto chain = read(svid.chain_pem);
  const TrustBundleSet bundles = bundles_of(root());
  EXPECT_TRUE(broken(explain_svid(chain, &bundles, TlsEnd::both, system_clock::now(), seconds{0})).empty());
  std::swap(chain[1], chain[2]);
  EXPECT_EQ(broken(explain_svid(chain, &bundles, TlsEnd::both, system_clock::now(), seconds{0})), std::set{chain_order});
  EXPECT_TRUE(verify_peer(borrow(chain).get(), bundles, TlsEnd::client, system_clock::now(), seconds{0}).peer);
  std::swap(chain[0], chain[1]);
  EXPECT_EQ(verify_peer(borrow(chain).get(), bundles, TlsEnd::client, system_clock::now(), seconds{0}).error, leaf_is_ca)
      << "the leaf comes first, for everybody";
}

struct Accepted {
  const char* name;
  std::string (*chain)();
};
const Accepted accepted[] = {
    {"Usual", [] { return root().issue(web_id).chain_pem; }},
    {"DnsNameBesideTheId", [] { return leaf([](SvidOptions& o) { o.dns = "web.default.svc"; }); }},
    {"WithoutExtendedKeyUsage", [] { return leaf([](SvidOptions& o) { o.extended_key_usage.clear(); }); }},
    {"KeyAgreementBesideDigitalSignature",
     [] { return leaf([](SvidOptions& o) { o.key_usage = "critical,digitalSignature,keyAgreement"; }); }},
    {"NoSubjectAndCriticalNames",
     [] {
       return leaf([](SvidOptions& o) {
         o.subject = false;
         o.critical_names = true;
       });
     }},
    {"IdOf2048Bytes", [] { return id("spiffe://example.org/" + std::string(2048 - 21, 'a')); }},
    {"IssuersIdOfTheTrustDomain", [] { return below([](CaOptions& o) { o.uri = "spiffe://example.org"; }); }},
    {"WithinThePermittedNames", [] { return below([](CaOptions& o) { o.name_constraints = "critical,permitted;URI:example.org"; }); }},
    {"WithinThePathLength", [] { return below([](CaOptions& o) { o.path_length = 0; }); }},
    {"RsaOf2048Bits", [] { return leaf([](SvidOptions& o) { o.rsa_bits = 2048; }); }},
    {"SignedWithSha384", [] { return leaf([](SvidOptions& o) { o.digest = EVP_sha384(); }); }},
};

class AcceptedCertificates : public testing::TestWithParam<Accepted> {};

TEST_P(AcceptedCertificates, BreakNoRule) {
  const auto chain = read(GetParam().chain());
  const TrustBundleSet bundles = bundles_of(root());
  for (const TlsEnd end : {TlsEnd::client, TlsEnd::server, TlsEnd::both}) {
    const auto verified = verify_peer(borrow(chain).get(), bundles, end, system_clock::now(), seconds{0});
    EXPECT_TRUE(verified.peer) << name_of(verified.error) << ": " << verified.detail;
    const auto results = explain_svid(chain, &bundles, end, system_clock::now(), seconds{0});
    for (const RuleResult& result : results) EXPECT_EQ(result.outcome, RuleResult::Outcome::passed) << name_of(result.rule);
  }
}

INSTANTIATE_TEST_SUITE_P(Whole, AcceptedCertificates, testing::ValuesIn(accepted), [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace postern
