// verify_peer: the only way to obtain the SPIFFE ID of the other end (X509-SVID section 5).
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "certs/certificate_error.hpp"
#include "certs/leaf_rules.hpp"
#include "certs/svid.hpp"
#include "certs/trust_bundle.hpp"

namespace postern {

// Who the other end is, as its certificate proved it.
struct PeerIdentity {
  SpiffeId id;
  std::string serial;    // of the leaf, hexadecimal
  SystemTime not_after;  // of the whole chain: the earliest
};

struct PeerVerification {
  std::optional<PeerIdentity> peer;  // set if and only if error == none
  CertificateError error = CertificateError::none;
  std::string detail;  // what exactly, for the log
};

// Clocks may differ by this much; a larger `skew` is cut to it.
inline constexpr std::chrono::seconds max_clock_skew{300};

// `chain`: leaf first, as presented; what follows may be in any order (RFC 8446 section 4.4.2). Chains to the bundle of the ID's own trust
// domain only; nothing of the system's is trusted.
PeerVerification verify_peer(STACK_OF(X509) * chain, const TrustBundleSet& bundles, TlsEnd end, SystemTime now, std::chrono::seconds skew);

// Every rule with how it came out, in the order of certificate_rules(), for a chain as its holder has it (leaf first, in order).
// `bundles` null: trust is not asked, nor what rests on it. All passed or not checked: verify_peer would accept it.
std::vector<RuleResult> explain_svid(const std::vector<X509Ptr>& chain, const TrustBundleSet* bundles, TlsEnd end, SystemTime now,
                                     std::chrono::seconds skew);

// Whether each certificate was issued by the next one, which is a CA: what we demand of our own chain. Empty: it is in order.
std::string chain_order_fault(const std::vector<X509Ptr>& chain);

}  // namespace postern
