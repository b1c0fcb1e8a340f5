#include "certs/certificate_error.hpp"

#include <algorithm>
#include <array>

namespace postern {
namespace {

using enum CertificateError;

constexpr std::array rules{
    CertificateRule{not_presented, "not_presented", "RFC 8446 4.4.2.4", "a certificate is presented", "no certificate was presented"},
    CertificateRule{malformed, "malformed", "RFC 5280 4.2", "the certificate decodes, and its extensions agree with each other",
                    "the certificate does not decode, or its extensions contradict each other"},
    CertificateRule{too_large, "too_large", "ours", "at most 8 certificates of at most 16 KiB",
                    "the certificate or its chain is too large"},
    CertificateRule{leaf_is_ca, "leaf_is_ca", "X509-SVID 4.1, 5.2", "the leaf is no CA (basicConstraints CA:FALSE)",
                    "the leaf is a CA certificate; expected CA:FALSE (X509-SVID section 4.1)"},
    CertificateRule{key_usage_missing, "key_usage_missing", "X509-SVID 4.3", "keyUsage is there",
                    "there is no keyUsage; expected a critical one with digitalSignature (X509-SVID section 4.3)"},
    CertificateRule{may_sign_certificates, "may_sign_certificates", "X509-SVID 4.3, 5.2", "keyUsage has no keyCertSign",
                    "keyUsage has keyCertSign, which a leaf must not have (X509-SVID section 4.3)"},
    CertificateRule{may_sign_crls, "may_sign_crls", "X509-SVID 4.3, 5.2", "keyUsage has no cRLSign",
                    "keyUsage has cRLSign, which a leaf must not have (X509-SVID section 4.3)"},
    CertificateRule{no_digital_signature, "no_digital_signature", "X509-SVID 4.3", "keyUsage has digitalSignature",
                    "keyUsage lacks digitalSignature (X509-SVID section 4.3)"},
    CertificateRule{key_usage_not_critical, "key_usage_not_critical", "X509-SVID 4.3", "keyUsage is critical",
                    "keyUsage is not critical (X509-SVID section 4.3)"},
    CertificateRule{extended_key_usage, "extended_key_usage", "X509-SVID 4.4",
                    "extendedKeyUsage, where there is one, has serverAuth and clientAuth",
                    "extendedKeyUsage does not allow this use; expected serverAuth and clientAuth (X509-SVID section 4.4)"},
    CertificateRule{no_uri_san, "no_uri_san", "X509-SVID 2", "there is a URI SAN",
                    "there is no URI SAN; expected exactly one, the SPIFFE ID (X509-SVID section 2)"},
    CertificateRule{several_uri_sans, "several_uri_sans", "X509-SVID 2, 5.2", "there is only one URI SAN",
                    "there is more than one URI SAN; expected exactly one, the SPIFFE ID (X509-SVID section 2)"},
    CertificateRule{san_not_critical, "san_not_critical", "X509-SVID 3.1", "subjectAltName is critical where there is no subject",
                    "there is no subject, and subjectAltName is not critical (X509-SVID section 3.1)"},
    CertificateRule{spiffe_id_too_long, "spiffe_id_too_long", "SPIFFE-ID 2.1, 2.3",
                    "the SPIFFE ID has at most 2048 bytes, its trust domain at most 255",
                    "the SPIFFE ID or its trust domain is too long (SPIFFE-ID section 2.3)"},
    CertificateRule{not_a_spiffe_id, "not_a_spiffe_id", "SPIFFE-ID 2.1, 2.2", "the URI SAN is a SPIFFE ID",
                    "the URI SAN is not a SPIFFE ID"},
    CertificateRule{no_workload_path, "no_workload_path", "X509-SVID 3.1, 5.2", "the SPIFFE ID has a path",
                    "the SPIFFE ID names a trust domain; expected a workload, with a path"},
    CertificateRule{chain_order, "chain_order", "RFC 8446 4.4.2", "the chain has the leaf first, then each issuer after what it issued",
                    "the chain is out of order; expected the leaf first, then its intermediates"},
    CertificateRule{unknown_trust_domain, "unknown_trust_domain", "X509-SVID 5.1", "there is a trust bundle of its trust domain",
                    "there is no trust bundle for the SPIFFE ID's trust domain"},
    CertificateRule{untrusted, "untrusted", "X509-SVID 5.1, RFC 5280 6.1", "it chains to an authority of its own trust domain",
                    "the certificate does not chain to an authority of its own trust domain"},
    CertificateRule{issuer_not_ca, "issuer_not_ca", "X509-SVID 4.1", "every issuer is a CA (basicConstraints CA:TRUE)",
                    "an issuer of the chain is no CA certificate; expected CA:TRUE (X509-SVID section 4.1)"},
    CertificateRule{issuer_may_not_sign, "issuer_may_not_sign", "X509-SVID 4.3", "every issuer's keyUsage has keyCertSign",
                    "keyUsage of an issuer of the chain lacks keyCertSign (X509-SVID section 4.3)"},
    CertificateRule{issuer_has_path, "issuer_has_path", "X509-SVID 3.2", "an issuer's SPIFFE ID, where it has one, has no path",
                    "an issuer of the chain has a SPIFFE ID with a path, which only a leaf may have (X509-SVID section 3.2)"},
    CertificateRule{path_too_long, "path_too_long", "X509-SVID 4.1, RFC 5280 4.2.1.9", "the path is within every pathLenConstraint",
                    "the certification path is longer than allowed"},
    CertificateRule{name_constraints, "name_constraints", "X509-SVID 4.2, RFC 5280 4.2.1.10",
                    "its names are within every issuer's name constraints", "a name lies outside the name constraints of an issuer"},
    CertificateRule{unknown_critical_extension, "unknown_critical_extension", "RFC 5280 4.2", "every critical extension is understood",
                    "there is a critical extension that is not understood"},
    CertificateRule{weak_key, "weak_key", "ours", "every key has at least 112 bits of security (P-256, Ed25519, RSA 2048)",
                    "a key of the chain is too weak; expected P-256, Ed25519 or RSA of at least 2048 bits"},
    CertificateRule{weak_signature, "weak_signature", "ours", "every signature is at least SHA-256",
                    "a signature of the chain is too weak; expected SHA-256 or better"},
    CertificateRule{not_yet_valid, "not_yet_valid", "RFC 5280 6.1.3", "every certificate of the path is valid already",
                    "the certificate is not valid yet; compare the clocks"},
    CertificateRule{expired, "expired", "RFC 5280 6.1.3", "no certificate of the path has expired", "the certificate has expired"},
    CertificateRule{bad_signature, "bad_signature", "RFC 5280 6.1.3", "every signature is right", "a signature in the chain is wrong"},
};
static_assert(rules.size() == static_cast<std::size_t>(bad_signature), "one rule for each error");

const CertificateRule* rule_of(CertificateError error) {
  const auto* const found = std::find_if(rules.begin(), rules.end(), [error](const CertificateRule& rule) { return rule.error == error; });
  return found == rules.end() ? nullptr : found;
}

}  // namespace

std::span<const CertificateRule> certificate_rules() { return rules; }

std::string_view name_of(CertificateError error) {
  const CertificateRule* rule = rule_of(error);
  return rule == nullptr ? "none" : rule->name;
}

std::string_view describe(CertificateError error) {
  const CertificateRule* rule = rule_of(error);
  return rule == nullptr ? "the certificate is acceptable" : rule->fault;
}

}  // namespace postern
