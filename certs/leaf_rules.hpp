// The rules of a leaf, one function each (X509-SVID sections 2 to 4, SPIFFE-ID section 2): verification stops at the first one that is
// broken, `posternctl certificate verify` goes through them all. No trust, no time.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/spiffe_id.hpp"
#include "certs/certificate_error.hpp"
#include "certs/openssl.hpp"

namespace postern {

// Which end of TLS the certificate is used for.
enum class TlsEnd : std::uint8_t { client, server, both };

struct LeafCheck {
  CertificateError error = CertificateError::none;
  std::string detail;
  SpiffeId id;  // valid when error == none
};
LeafCheck check_leaf(X509* leaf, TlsEnd end);

// How one rule came out.
struct RuleResult {
  enum class Outcome : std::uint8_t { passed, failed, not_checked };
  CertificateError rule = CertificateError::none;
  Outcome outcome = Outcome::not_checked;
  std::string detail;
};
// Every rule of a leaf, in order. Those that rest on a broken one are not checked.
std::vector<RuleResult> explain_leaf(X509* leaf, TlsEnd end);

// The URI SANs of a certificate, as they are. Nothing: there is no such extension, or it does not decode (`malformed`).
std::vector<std::string> uri_sans(X509* certificate, bool* malformed);

}  // namespace postern
