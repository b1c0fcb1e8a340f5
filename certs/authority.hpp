// Authority: what signs X.509-SVIDs of one trust domain (X509-SVID sections 3 and 4): a signing certificate below a root, ECDSA P-256.
#pragma once

#include <chrono>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "certs/svid.hpp"

namespace postern {

// An authority as it is kept and given: PEM, as in a Secret of the type kubernetes.io/tls.
struct AuthorityFiles {
  std::string roots;  // what others are to trust: one root, or more
  std::string chain;  // the signing certificate, then its issuers; a root at its end may be left out
  std::string key;    // of the signing certificate
};

struct SignedSvid {
  std::string chain_pem;  // leaf first, then the intermediates, without the root
  std::string serial;     // hexadecimal
  SystemTime not_after;
};

class Authority {
 public:
  // A new root and one intermediate that it signed. The root's key is forgotten: another intermediate comes with another root. Both are
  // bound to the trust domain by name constraints (RFC 5280 section 4.2.1.10) and valid from 30 s ago for `lifetime`.
  static Result<AuthorityFiles> create(const TrustDomain& domain, std::chrono::seconds lifetime, SystemTime now);
  // Reads one. Refused: a signing certificate that may not sign, does not chain to one of the roots, is bound to other names than this
  // trust domain's, or has expired; a key that is not its own. Errors name the rule.
  static Result<Authority> load(const AuthorityFiles& files, const TrustDomain& domain, SystemTime now);

  // An SVID for that key: valid from 30 s ago for `ttl`, and never longer than the authority itself. REQUIRES: `id` is of the trust domain,
  // and has a path.
  Result<SignedSvid> sign_svid(EVP_PKEY* public_key, const SpiffeId& id, std::chrono::seconds ttl, SystemTime now) const;

  const std::string& roots_pem() const { return roots_pem_; }
  SystemTime not_before() const { return not_before_; }
  SystemTime not_after() const { return not_after_; }    // the earliest of the path
  const std::string& serial() const { return serial_; }  // of the signing certificate

 private:
  Authority() = default;

  TrustDomain domain_;
  X509Ptr signer_;
  KeyPtr key_;
  std::string roots_pem_;
  std::string chain_pem_;  // what an SVID's own chain ends with
  SystemTime not_before_;
  SystemTime not_after_;
  std::string serial_;
};

inline constexpr std::chrono::seconds not_before_skew{30};  // clocks of those who verify may be behind ours

}  // namespace postern
