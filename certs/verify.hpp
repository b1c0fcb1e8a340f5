// verify_peer: the only way to obtain the SPIFFE ID of the other end (X509-SVID section 5).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "certs/svid.hpp"
#include "certs/trust_bundle.hpp"

namespace postern {

enum class CertificateError : std::uint8_t {
  none,
  not_presented,  // the peer sent no certificate
  malformed,      // does not decode, or its extensions contradict each other
  too_large,      // a certificate or the chain is beyond our limits
  no_uri_san,     // section 2: exactly one URI SAN
  several_uri_sans,
  not_a_spiffe_id,    // the URI SAN is no valid SPIFFE ID
  no_workload_path,   // a leaf's ID must have a path (section 5.2)
  leaf_is_ca,         // section 4.1: CA must be false
  key_usage_missing,  // section 4.3
  key_usage_not_critical,
  no_digital_signature,
  may_sign_certificates,  // keyCertSign
  may_sign_crls,          // cRLSign
  extended_key_usage,     // section 4.4: present, and does not allow this end of TLS
  unknown_trust_domain,   // no bundle for the ID's trust domain
  untrusted,              // does not chain to an authority of the ID's own trust domain
  path_too_long,          // chain, or an authority's path length constraint
  not_yet_valid,
  expired,
  bad_signature,
};
std::string_view name_of(CertificateError error);   // snake_case, as in the enumeration
std::string_view describe(CertificateError error);  // a sentence for people

// Who the other end is, as its certificate proved it.
struct PeerIdentity {
  SpiffeId id;
  std::string serial;    // of the leaf, hexadecimal
  SystemTime not_after;  // of the whole chain: the earliest
};

// Which end of TLS the certificate is used for.
enum class TlsEnd : std::uint8_t { client, server, both };

struct PeerVerification {
  std::optional<PeerIdentity> peer;  // set if and only if error == none
  CertificateError error = CertificateError::none;
  std::string detail;  // what exactly, for the log
};

// Clocks may differ by this much; a larger `skew` is cut to it.
inline constexpr std::chrono::seconds max_clock_skew{300};

// `chain`: leaf first, as presented. Chains to the bundle of the ID's own trust domain only; nothing of the system's is trusted.
PeerVerification verify_peer(STACK_OF(X509) * chain, const TrustBundleSet& bundles, TlsEnd end, SystemTime now, std::chrono::seconds skew);

struct LeafCheck {
  CertificateError error = CertificateError::none;
  std::string detail;
  SpiffeId id;  // valid when error == none
};
// The leaf rules alone (sections 2 to 4); no trust, no time.
LeafCheck check_leaf(X509* leaf, TlsEnd end);

}  // namespace postern
