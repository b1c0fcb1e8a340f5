// TestAuthority: makes CAs and SVIDs in memory, also every wrong kind of them. ECDSA P-256, so that a test can make many.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "certs/openssl.hpp"
#include "certs/tls_context.hpp"

namespace postern::test {

using std::chrono::seconds;

struct CaOptions {
  seconds not_before_offset{-300};
  seconds ttl{24 * 3600};  // from now
  int path_length = -1;    // -1: no constraint
  bool ca = true;
  std::string key_usage = "critical,keyCertSign,cRLSign";
  std::string uri;               // a URI SAN
  std::string name_constraints;  // as in openssl.cnf; empty: none
};

struct SvidOptions {
  std::vector<std::string> uris;  // one SPIFFE ID, where all is well
  std::string dns;                // a DNS SAN beside them
  seconds not_before_offset{-300};
  seconds ttl{3600};  // from now
  bool ca = false;
  std::string key_usage = "critical,digitalSignature";  // as in openssl.cnf; empty: no extension
  std::string extended_key_usage = "serverAuth,clientAuth";
  std::string basic_constraints;  // as in openssl.cnf, instead of what `ca` says
  bool subject = true;
  bool critical_names = false;
  bool names_twice = false;        // two subjectAltName extensions
  bool unknown_critical = false;   // a critical extension that nobody knows
  unsigned rsa_bits = 0;           // 0: an EC key
  const EVP_MD* digest = nullptr;  // of the signature; SHA-256
};

struct TestSvid {
  std::string chain_pem;  // leaf first, then the intermediates
  std::string key_pem;
};

// Every function throws std::runtime_error where OpenSSL refuses.
class TestAuthority {
 public:
  static TestAuthority root(std::string_view name, const CaOptions& options = {});
  TestAuthority intermediate(std::string_view name, const CaOptions& options = {}) const;
  // Reads what certificate_pem() and key_pem() wrote.
  static TestAuthority load(const std::string& certificate_pem, const std::string& key_pem);

  TestSvid issue(const SvidOptions& options) const;
  TestSvid issue(std::string_view spiffe_id) const;

  std::string certificate_pem() const;  // of a root: the trust bundle; of an intermediate: what a chain ends with
  std::string key_pem() const;
  TrustBundle bundle(std::string_view trust_domain) const;

 private:
  TestAuthority() = default;
  std::vector<X509Ptr> chain_;  // its own certificate, then its issuers without the root
  bool is_root_ = false;
  KeyPtr key_;
};

// An X509Context of this SVID that trusts `authority` in the SVID's own trust domain.
std::shared_ptr<const X509Context> make_context(const TestSvid& svid, const TestAuthority& authority);

// Replaces the file by rename, as careful writers do. `owner` -1: the caller.
void write_file(const std::string& path, std::string_view content, unsigned mode = 0644, long owner = -1);

}  // namespace postern::test
