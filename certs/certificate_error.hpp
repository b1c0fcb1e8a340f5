// CertificateError: every rule that a peer's certificate can break, by name. docs/identity-verification.md has them as a table.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace postern {

enum class CertificateError : std::uint8_t {
  none,
  not_presented,  // the peer sent no certificate
  malformed,      // does not decode, or its extensions contradict each other
  too_large,      // a certificate or the chain is beyond our limits
  leaf_is_ca,
  key_usage_missing,
  may_sign_certificates,  // keyCertSign
  may_sign_crls,          // cRLSign
  no_digital_signature,
  key_usage_not_critical,
  extended_key_usage,  // present, and does not allow this end of TLS
  no_uri_san,
  several_uri_sans,
  san_not_critical,  // where there is no subject
  spiffe_id_too_long,
  not_a_spiffe_id,       // the URI SAN is no valid SPIFFE ID
  no_workload_path,      // a leaf's ID must have a path
  chain_order,           // of our own chain only: a peer's may be in any order behind its leaf
  unknown_trust_domain,  // no bundle for the ID's trust domain
  untrusted,             // does not chain to an authority of the ID's own trust domain
  issuer_not_ca,         // what issued it, or one above, is no CA certificate
  issuer_may_not_sign,   // ... or has no keyCertSign
  issuer_has_path,       // ... or has a SPIFFE ID with a path
  path_too_long,         // our bound on the chain, or an authority's path length constraint
  name_constraints,      // of an authority of the path
  unknown_critical_extension,
  weak_key,
  weak_signature,
  not_yet_valid,
  expired,
  bad_signature,
};

// What is said of a rule.
struct CertificateRule {
  CertificateError error;
  std::string_view name;     // snake_case, as in the enumeration: close.detail of the access log
  std::string_view section;  // of the standard that it is from
  std::string_view rule;     // what is asked for
  std::string_view fault;    // a sentence for people: what is wrong
};
// One for each error but `none`, in the order in which they are checked.
std::span<const CertificateRule> certificate_rules();

std::string_view name_of(CertificateError error);   // "none" too
std::string_view describe(CertificateError error);  // the fault

}  // namespace postern
