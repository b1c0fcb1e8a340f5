#include "certs/verify.hpp"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>

namespace postern {
namespace {

using StoreCtxPtr = std::unique_ptr<X509_STORE_CTX, OpensslDeleter<X509_STORE_CTX, X509_STORE_CTX_free>>;
using GeneralNamesPtr = std::unique_ptr<GENERAL_NAMES, OpensslDeleter<GENERAL_NAMES, GENERAL_NAMES_free>>;

LeafCheck refuse(CertificateError error, std::string detail = {}) { return LeafCheck{error, std::move(detail), {}}; }
PeerVerification reject(CertificateError error, std::string detail = {}) {
  return PeerVerification{std::nullopt, error, std::move(detail)};
}

// Section 2: exactly one URI SAN, which is the SPIFFE ID. Other kinds of names may stand beside it.
LeafCheck read_id(X509* leaf) {
  int critical = 0;
  const GeneralNamesPtr names(static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(leaf, NID_subject_alt_name, &critical, nullptr)));
  if (!names) {
    ERR_clear_error();
    // -1: there is none; anything else: it occurs twice or does not decode.
    return critical == -1 ? refuse(CertificateError::no_uri_san) : refuse(CertificateError::malformed, "subjectAltName");
  }
  const ASN1_IA5STRING* uri = nullptr;
  for (int i = 0; i < sk_GENERAL_NAME_num(names.get()); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names.get(), i);
    if (name->type != GEN_URI) continue;
    if (uri != nullptr) return refuse(CertificateError::several_uri_sans);
    uri = name->d.uniformResourceIdentifier;
  }
  if (uri == nullptr) return refuse(CertificateError::no_uri_san);
  const std::string_view text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)), static_cast<std::size_t>(ASN1_STRING_length(uri)));
  auto id = SpiffeId::parse(text);
  if (!id) return refuse(CertificateError::not_a_spiffe_id, id.error().message);
  if (id->path().empty()) return refuse(CertificateError::no_workload_path, id->text());
  return LeafCheck{CertificateError::none, {}, std::move(id).value()};
}

bool is_critical(const X509* certificate, int nid) {
  const int index = X509_get_ext_by_NID(certificate, nid, -1);
  return index >= 0 && X509_EXTENSION_get_critical(X509_get_ext(certificate, index)) != 0;
}

CertificateError check_usage(X509* leaf, TlsEnd end) {
  const std::uint32_t flags = X509_get_extension_flags(leaf);
  if ((flags & EXFLAG_INVALID) != 0) return CertificateError::malformed;
  if ((flags & EXFLAG_CA) != 0) return CertificateError::leaf_is_ca;
  if ((flags & EXFLAG_KUSAGE) == 0) return CertificateError::key_usage_missing;
  const std::uint32_t usage = X509_get_key_usage(leaf);
  if ((usage & KU_KEY_CERT_SIGN) != 0) return CertificateError::may_sign_certificates;
  if ((usage & KU_CRL_SIGN) != 0) return CertificateError::may_sign_crls;
  if ((usage & KU_DIGITAL_SIGNATURE) == 0) return CertificateError::no_digital_signature;
  if (!is_critical(leaf, NID_key_usage)) return CertificateError::key_usage_not_critical;
  if ((flags & EXFLAG_XKUSAGE) != 0) {
    const std::uint32_t extended = X509_get_extended_key_usage(leaf);
    std::uint32_t needed = 0;
    if (end != TlsEnd::client) needed |= XKU_SSL_SERVER;
    if (end != TlsEnd::server) needed |= XKU_SSL_CLIENT;
    if ((extended & XKU_ANYEKU) == 0 && (extended & needed) != needed) return CertificateError::extended_key_usage;
  }
  return CertificateError::none;
}

CertificateError error_of(int x509_error) {
  switch (x509_error) {
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG: return CertificateError::path_too_long;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE: return CertificateError::bad_signature;
    // X.509's own codes are an open list, so there is a rest: whatever it is, the chain does not hold.
    default: return CertificateError::untrusted;
  }
}

// Builds the path from the leaf to an authority of this bundle. Time is checked afterwards, on the path that was found.
Result<StoreCtxPtr> start_path(X509* leaf, STACK_OF(X509) * chain, const TrustBundle& bundle) {
  StoreCtxPtr ctx(X509_STORE_CTX_new());
  // No X509_STORE: threads would share its lock, and nothing but these authorities is ever looked up.
  if (!ctx || X509_STORE_CTX_init(ctx.get(), nullptr, leaf, chain) != 1) return openssl_error("cannot start path validation");
  X509_STORE_CTX_set0_trusted_stack(ctx.get(), bundle.stack());
  X509_VERIFY_PARAM* param = X509_STORE_CTX_get0_param(ctx.get());
  // Every authority in the bundle is an anchor, self-signed or not; SPIFFE bundles may hold either (X509-SVID section 3.2).
  X509_VERIFY_PARAM_set_flags(param, X509_V_FLAG_NO_CHECK_TIME | X509_V_FLAG_PARTIAL_CHAIN);
  X509_VERIFY_PARAM_set_purpose(param, X509_PURPOSE_ANY);
  X509_VERIFY_PARAM_set_depth(param, static_cast<int>(max_chain_length));
  X509_VERIFY_PARAM_set_auth_level(param, 2);  // 112 bits: no SHA-1, no RSA below 2048
  return ctx;
}

struct PathCheck {
  CertificateError error = CertificateError::none;
  std::string detail;
  SystemTime not_after = SystemTime::max();
};

// Purpose "any" leaves what a CA must be to us, and X509_V_FLAG_NO_CHECK_TIME the time.
PathCheck check_path(STACK_OF(X509) * path, SystemTime now, std::chrono::seconds skew) {
  PathCheck result;
  for (int i = 0; i < sk_X509_num(path); ++i) {
    X509* const certificate = sk_X509_value(path, i);
    const std::string which = i == 0 ? "leaf" : "certificate " + std::to_string(i + 1) + " of the path";
    if (i > 0 && X509_check_ca(certificate) != 1) return {CertificateError::untrusted, which + " is no CA", {}};
    const auto not_before = not_before_of(certificate);
    const auto not_after = not_after_of(certificate);
    if (!not_before || !not_after) return {CertificateError::malformed, which + ": validity", {}};
    if (now + skew < *not_before) return {CertificateError::not_yet_valid, which, {}};
    if (now - skew >= *not_after) return {CertificateError::expired, which, {}};
    result.not_after = std::min(result.not_after, *not_after);
  }
  return result;
}

}  // namespace

LeafCheck check_leaf(X509* leaf, TlsEnd end) {
  const CertificateError usage = check_usage(leaf, end);
  if (usage != CertificateError::none) return refuse(usage);
  return read_id(leaf);
}

PeerVerification verify_peer(STACK_OF(X509) * chain, const TrustBundleSet& bundles, TlsEnd end, SystemTime now, std::chrono::seconds skew) {
  const int presented = chain == nullptr ? 0 : sk_X509_num(chain);
  if (presented <= 0) return reject(CertificateError::not_presented);
  if (static_cast<std::size_t>(presented) > max_chain_length)
    return reject(CertificateError::too_large, std::to_string(presented) + " certificates");
  for (int i = 0; i < presented; ++i) {
    const int size = i2d_X509(sk_X509_value(chain, i), nullptr);
    if (size <= 0) return reject(CertificateError::malformed);
    if (static_cast<std::size_t>(size) > max_certificate_bytes) return reject(CertificateError::too_large, std::to_string(size) + " bytes");
  }
  X509* const leaf = sk_X509_value(chain, 0);

  LeafCheck check = check_leaf(leaf, end);
  if (check.error != CertificateError::none) return reject(check.error, std::move(check.detail));
  const TrustBundle* bundle = bundles.find(check.id.trust_domain());
  if (bundle == nullptr) return reject(CertificateError::unknown_trust_domain, std::string(check.id.trust_domain()));

  auto ctx = start_path(leaf, chain, *bundle);
  if (!ctx) return reject(CertificateError::malformed, ctx.error().message);
  if (X509_verify_cert(ctx->get()) != 1) {
    const int reason = X509_STORE_CTX_get_error(ctx->get());
    ERR_clear_error();
    return reject(error_of(reason), X509_verify_cert_error_string(reason));
  }
  const PathCheck path = check_path(X509_STORE_CTX_get0_chain(ctx->get()), now, std::clamp(skew, std::chrono::seconds{0}, max_clock_skew));
  if (path.error != CertificateError::none) return reject(path.error, path.detail);
  auto serial = serial_of(leaf);
  if (!serial) return reject(CertificateError::malformed, serial.error().message);
  return PeerVerification{PeerIdentity{std::move(check.id), std::move(serial).value(), path.not_after}, CertificateError::none, {}};
}

std::string_view name_of(CertificateError error) {
  switch (error) {
    case CertificateError::none: return "none";
    case CertificateError::not_presented: return "not_presented";
    case CertificateError::malformed: return "malformed";
    case CertificateError::too_large: return "too_large";
    case CertificateError::no_uri_san: return "no_uri_san";
    case CertificateError::several_uri_sans: return "several_uri_sans";
    case CertificateError::not_a_spiffe_id: return "not_a_spiffe_id";
    case CertificateError::no_workload_path: return "no_workload_path";
    case CertificateError::leaf_is_ca: return "leaf_is_ca";
    case CertificateError::key_usage_missing: return "key_usage_missing";
    case CertificateError::key_usage_not_critical: return "key_usage_not_critical";
    case CertificateError::no_digital_signature: return "no_digital_signature";
    case CertificateError::may_sign_certificates: return "may_sign_certificates";
    case CertificateError::may_sign_crls: return "may_sign_crls";
    case CertificateError::extended_key_usage: return "extended_key_usage";
    case CertificateError::unknown_trust_domain: return "unknown_trust_domain";
    case CertificateError::untrusted: return "untrusted";
    case CertificateError::path_too_long: return "path_too_long";
    case CertificateError::not_yet_valid: return "not_yet_valid";
    case CertificateError::expired: return "expired";
    case CertificateError::bad_signature: return "bad_signature";
  }
  return "unknown";
}

std::string_view describe(CertificateError error) {
  switch (error) {
    case CertificateError::none: return "the certificate is acceptable";
    case CertificateError::not_presented: return "no certificate was presented";
    case CertificateError::malformed: return "the certificate does not decode, or its extensions contradict each other";
    case CertificateError::too_large: return "the certificate or its chain is too large";
    case CertificateError::no_uri_san: return "there is no URI SAN; expected exactly one, the SPIFFE ID (X509-SVID section 2)";
    case CertificateError::several_uri_sans:
      return "there is more than one URI SAN; expected exactly one, the SPIFFE ID (X509-SVID section 2)";
    case CertificateError::not_a_spiffe_id: return "the URI SAN is not a SPIFFE ID";
    case CertificateError::no_workload_path: return "the SPIFFE ID names a trust domain; expected a workload, with a path";
    case CertificateError::leaf_is_ca: return "the leaf is a CA certificate; expected CA:FALSE (X509-SVID section 4.1)";
    case CertificateError::key_usage_missing:
      return "there is no keyUsage; expected a critical one with digitalSignature (X509-SVID section 4.3)";
    case CertificateError::key_usage_not_critical: return "keyUsage is not critical (X509-SVID section 4.3)";
    case CertificateError::no_digital_signature: return "keyUsage lacks digitalSignature (X509-SVID section 4.3)";
    case CertificateError::may_sign_certificates: return "keyUsage has keyCertSign, which a leaf must not have (X509-SVID section 4.3)";
    case CertificateError::may_sign_crls: return "keyUsage has cRLSign, which a leaf must not have (X509-SVID section 4.3)";
    case CertificateError::extended_key_usage:
      return "extendedKeyUsage does not allow this use; expected serverAuth and clientAuth (X509-SVID section 4.4)";
    case CertificateError::unknown_trust_domain: return "there is no trust bundle for the SPIFFE ID's trust domain";
    case CertificateError::untrusted: return "the certificate does not chain to an authority of its own trust domain";
    case CertificateError::path_too_long: return "the certification path is longer than allowed";
    case CertificateError::not_yet_valid: return "the certificate is not valid yet; compare the clocks";
    case CertificateError::expired: return "the certificate has expired";
    case CertificateError::bad_signature: return "a signature in the chain is wrong";
  }
  return "unknown";
}

}  // namespace postern
