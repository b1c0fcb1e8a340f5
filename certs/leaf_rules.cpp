#include "certs/leaf_rules.hpp"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <array>
#include <string_view>

namespace postern {
namespace {

using GeneralNamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslDeleter<GENERAL_NAMES, GENERAL_NAMES_free>>;
using Outcome = RuleResult::Outcome;

struct Leaf {
  X509* certificate;
  TlsEnd end;
  std::uint32_t flags;
  std::uint32_t usage;
  std::vector<std::string> uris;
  bool names_malformed = false;

  bool has_usage() const { return (flags & EXFLAG_KUSAGE) != 0; }
};

struct Finding {
  Outcome outcome = Outcome::passed;
  std::string detail;
};

Finding holds(bool ok, std::string detail = {}) { return {ok ? Outcome::passed : Outcome::failed, ok ? std::string() : std::move(detail)}; }
Finding not_checked() { return {Outcome::not_checked, {}}; }

bool is_critical(const X509* certificate, int nid) {
  const int index = X509_get_ext_by_NID(certificate, nid, -1);
  return index >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, index)) != 0;
}

Finding usage_has(const Leaf& leaf, std::uint32_t bit, bool wanted) {
  return leaf.has_usage() ? holds(((leaf.usage & bit) != 0) == wanted) : not_checked();
}

Finding extended_usage(const Leaf& leaf) {
  if ((leaf.flags & EXFLAG_XKUSAGE) == 0) return holds(true);
  const std::uint32_t extended = X509_get_extended_key_usage(leaf.certificate);
  std::uint32_t needed = 0;
  if (leaf.end != TlsEnd::client) needed |= XKU_SSL_SERVER;
  if (leaf.end != TlsEnd::server) needed |= XKU_SSL_CLIENT;
  return holds((extended & XKU_ANYEKU) != 0 || (extended & needed) == needed);
}

Finding decodes(const Leaf& leaf) {
  if ((leaf.flags & EXFLAG_INVALID) != 0) return holds(false, "an extension is invalid");
  // RFC 5280 section 4.2.1.9.
  if ((leaf.flags & EXFLAG_CA) == 0 && X509_get_pathlen(leaf.certificate) >= 0) return holds(false, "pathLenConstraint of what is no CA");
  return holds(!leaf.names_malformed, "subjectAltName");
}

// RFC 5280 section 4.2.1.6: a certificate without a subject is named by its SANs alone.
Finding critical_names(const Leaf& leaf) {
  if (leaf.uris.empty()) return not_checked();
  return holds(X509_NAME_entry_count(X509_get_subject_name(leaf.certificate)) > 0 || is_critical(leaf.certificate, NID_subject_alt_name));
}

Finding id_length(const Leaf& leaf) {
  constexpr std::size_t longest_id = 2048;
  constexpr std::size_t longest_domain = 255;
  constexpr std::string_view scheme = "spiffe://";
  if (leaf.uris.size() != 1) return not_checked();
  const std::string_view text = leaf.uris.front();
  if (text.size() > longest_id) return holds(false, std::to_string(text.size()) + " bytes");
  if (!text.starts_with(scheme)) return holds(true);
  const std::size_t domain = text.substr(scheme.size()).substr(0, text.substr(scheme.size()).find('/')).size();
  return holds(domain <= longest_domain, "a trust domain of " + std::to_string(domain) + " bytes");
}

Finding is_id(const Leaf& leaf) {
  if (leaf.uris.size() != 1 || id_length(leaf).outcome != Outcome::passed) return not_checked();
  const auto id = SpiffeId::parse(leaf.uris.front());
  return holds(static_cast<bool>(id), id ? std::string() : id.error().message);
}

Finding id_has_path(const Leaf& leaf) {
  if (is_id(leaf).outcome != Outcome::passed) return not_checked();
  return holds(!SpiffeId::parse(leaf.uris.front())->path().empty(), leaf.uris.front());
}

struct LeafRule {
  CertificateError error;
  Finding (*find)(const Leaf& leaf);
};
using enum CertificateError;
constexpr std::array leaf_rules{
    LeafRule{malformed, decodes},
    LeafRule{leaf_is_ca, [](const Leaf& l) { return holds((l.flags & EXFLAG_CA) == 0); }},
    LeafRule{key_usage_missing, [](const Leaf& l) { return holds(l.has_usage()); }},
    LeafRule{may_sign_certificates, [](const Leaf& l) { return usage_has(l, KU_KEY_CERT_SIGN, false); }},
    LeafRule{may_sign_crls, [](const Leaf& l) { return usage_has(l, KU_CRL_SIGN, false); }},
    LeafRule{no_digital_signature, [](const Leaf& l) { return usage_has(l, KU_DIGITAL_SIGNATURE, true); }},
    LeafRule{key_usage_not_critical,
             [](const Leaf& l) { return l.has_usage() ? holds(is_critical(l.certificate, NID_key_usage)) : not_checked(); }},
    LeafRule{extended_key_usage, extended_usage},
    LeafRule{no_uri_san, [](const Leaf& l) { return l.names_malformed ? not_checked() : holds(!l.uris.empty()); }},
    LeafRule{several_uri_sans, [](const Leaf& l) { return l.uris.empty() ? not_checked() : holds(l.uris.size() == 1); }},
    LeafRule{san_not_critical, critical_names},
    LeafRule{spiffe_id_too_long, id_length},
    LeafRule{not_a_spiffe_id, is_id},
    LeafRule{no_workload_path, id_has_path},
};

Leaf read_leaf(X509* certificate, TlsEnd end) {
  Leaf leaf{certificate, end, X509_get_extension_flags(certificate), X509_get_key_usage(certificate), {}, false};
  leaf.uris = uri_sans(certificate, &leaf.names_malformed);
  return leaf;
}

}  // namespace

std::vector<std::string> uri_sans(X509* certificate, bool* malformed) {
  int critical = 0;
  const GeneralNamesPtr names(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, &critical, nullptr)));
  std::vector<std::string> uris;
  if (!names) {
    ERR_clear_error();
    *malformed = critical != -1;  // -1: there is none; anything else: it occurs twice or does not decode
    return uris;
  }
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    uris.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)), static_cast<std::size_t>(ASN1_STRING_length(uri)));
  }
  return uris;
}

LeafCheck check_leaf(X509* certificate, TlsEnd end) {
  const Leaf leaf = read_leaf(certificate, end);
  for (const LeafRule& rule : leaf_rules) {
    Finding found = rule.find(leaf);
    if (found.outcome != Outcome::passed) return {rule.error, std::move(found.detail), {}};  // what rests on a broken rule comes after it
  }
  return {CertificateError::none, {}, *SpiffeId::parse(leaf.uris.front())};
}

std::vector<RuleResult> explain_leaf(X509* certificate, TlsEnd end) {
  const Leaf leaf = read_leaf(certificate, end);
  std::vector<RuleResult> results;
  for (const LeafRule& rule : leaf_rules) {
    // OpenSSL knows nothing for sure of a certificate whose extensions contradict each other.
    const bool readable = results.empty() || results.front().outcome == Outcome::passed;
    Finding found = readable ? rule.find(leaf) : not_checked();
    results.push_back({rule.error, found.outcome, std::move(found.detail)});
  }
  return results;
}

}  // namespace postern
