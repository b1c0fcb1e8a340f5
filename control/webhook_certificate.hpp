// The webhook's own certificate authority and certificates: made here, so that nothing has to be installed for them. They are no part of
// the mesh's trust: only the API server is told to trust this authority, for this webhook.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "certs/svid.hpp"
#include "certs/trust_bundle.hpp"

namespace postern {

struct PemPair {
  std::string certificate;
  std::string key;

  bool operator==(const PemPair&) const = default;
};

inline constexpr std::chrono::hours webhook_authority_lifetime{24 * 365 * 5};
inline constexpr std::chrono::hours webhook_certificate_lifetime{24 * 30};

// A self-signed authority (RFC 5280: CA, pathLen 0, keyCertSign), ECDSA P-256.
Result<PemPair> make_webhook_authority(SystemTime now);
// A server certificate for these DNS names, signed by it; it does not outlive the authority.
Result<PemPair> make_webhook_certificate(const PemPair& authority, const std::vector<std::string>& names, SystemTime now);

// Whether a certificate (PEM) has less than a third of its life left, or cannot be read.
bool is_due_for_renewal(const std::string& certificate_pem, SystemTime now);

// The authorities of a trust bundle, PEM: what the injector gives to a sidecar to begin with.
std::string authorities_pem(const TrustBundle& bundle);

}  // namespace postern
