#include "certs/verify.hpp"

#include <openssl/err.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <utility>

namespace postern {
namespace {

using StoreCtxPtr = std::unique_ptr<X509_STORE_CTX, OpensslDeleter<X509_STORE_CTX, X509_STORE_CTX_free>>;
using Outcome = RuleResult::Outcome;

struct Fault {
  CertificateError error = CertificateError::none;
  std::string detail;
};

PeerVerification reject(CertificateError error, std::string detail = {}) {
  return PeerVerification{std::nullopt, error, std::move(detail)};
}

CertificateError error_of(int x509_error) {
  switch (x509_error) {
    case X509_V_ERR_PATH_LENGTH_EXCEEDED:
    case X509_V_ERR_CERT_CHAIN_TOO_LONG: return CertificateError::path_too_long;
    case X509_V_ERR_CERT_SIGNATURE_FAILURE:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CERT_SIGNATURE: return CertificateError::bad_signature;
    case X509_V_ERR_INVALID_CA: return CertificateError::issuer_not_ca;
    case X509_V_ERR_KEYUSAGE_NO_CERTSIGN: return CertificateError::issuer_may_not_sign;
    case X509_V_ERR_PERMITTED_VIOLATION:
    case X509_V_ERR_EXCLUDED_VIOLATION:
    case X509_V_ERR_SUBTREE_MINMAX:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_TYPE:
    case X509_V_ERR_UNSUPPORTED_CONSTRAINT_SYNTAX:
    case X509_V_ERR_UNSUPPORTED_NAME_SYNTAX: return CertificateError::name_constraints;
    case X509_V_ERR_UNHANDLED_CRITICAL_EXTENSION: return CertificateError::unknown_critical_extension;
    case X509_V_ERR_EE_KEY_TOO_SMALL:
    case X509_V_ERR_CA_KEY_TOO_SMALL: return CertificateError::weak_key;
    case X509_V_ERR_CA_MD_TOO_WEAK: return CertificateError::weak_signature;
    // X.509's own codes are an open list, so there is a rest: whatever it is, the chain does not hold.
    default: return CertificateError::untrusted;
  }
}

// A CA by its basic constraints that keyUsage does not let sign is another mistake than a leaf that issues.
CertificateError why_no_ca(X509* certificate) {
  if (X509_check_ca(certificate) == 1) return CertificateError::none;
  const bool says_ca = (X509_get_extension_flags(certificate) & EXFLAG_CA) != 0;
  return says_ca ? CertificateError::issuer_may_not_sign : CertificateError::issuer_not_ca;
}

// OpenSSL passes over issuers that may not sign, and then knows of none. This only finds a better name for it.
Fault why_untrusted(X509* leaf, STACK_OF(X509) * chain, const TrustBundle& bundle, Fault otherwise) {
  X509* current = leaf;
  for (int step = 0; step < sk_X509_num(chain); ++step) {
    const auto issued_current = [&](X509* other) {
      return other != current && X509_NAME_cmp(X509_get_subject_name(other), X509_get_issuer_name(current)) == 0;
    };
    const auto& authorities = bundle.authorities();
    if (std::any_of(authorities.begin(), authorities.end(), [&](const X509Ptr& one) { return issued_current(one.get()); })) break;
    X509* issuer = nullptr;
    for (int i = 1; i < sk_X509_num(chain) && issuer == nullptr; ++i) {
      if (issued_current(sk_X509_value(chain, i))) issuer = sk_X509_value(chain, i);
    }
    if (issuer == nullptr) break;
    if (const CertificateError fault = why_no_ca(issuer); fault != CertificateError::none)
      return {fault, "certificate " + std::to_string(step + 2) + " of the path"};
    current = issuer;
  }
  return otherwise;
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

// To be told every fault, and not only the first one.
int note_and_go_on(int ok, X509_STORE_CTX* ctx) {
  if (ok == 1) return 1;
  auto* faults = static_cast<std::vector<Fault>*>(X509_STORE_CTX_get_app_data(ctx));
  const int reason = X509_STORE_CTX_get_error(ctx);
  faults->push_back({error_of(reason), X509_verify_cert_error_string(reason)});
  return 1;
}

struct Path {
  std::vector<Fault> faults;  // not `all`: the first one
  SystemTime not_after = SystemTime::max();
};

// X509-SVID section 3.2: an issuer's SPIFFE ID, if it has one, is that of a trust domain.
bool has_path(X509* issuer) {
  bool malformed = false;
  const auto uris = uri_sans(issuer, &malformed);
  return malformed || std::any_of(uris.begin(), uris.end(), [](const std::string& uri) {
           if (!uri.starts_with("spiffe:")) return false;
           const auto id = SpiffeId::parse(uri);
           return !id || !id->path().empty();
         });
}

// Purpose "any" leaves what a CA must be to us, and X509_V_FLAG_NO_CHECK_TIME the time.
void check_path(STACK_OF(X509) * certificates, SystemTime now, std::chrono::seconds skew, Path& path) {
  for (int i = 0; i < sk_X509_num(certificates); ++i) {
    X509* const certificate = sk_X509_value(certificates, i);
    const std::string which = i == 0 ? "leaf" : "certificate " + std::to_string(i + 1) + " of the path";
    const auto broken = [&](CertificateError error) { path.faults.push_back({error, which}); };
    if (i > 0) {
      if (const CertificateError fault = why_no_ca(certificate); fault != CertificateError::none) broken(fault);
      if (has_path(certificate)) broken(CertificateError::issuer_has_path);
    }
    const auto not_before = not_before_of(certificate);
    const auto not_after = not_after_of(certificate);
    if (!not_before || !not_after) {
      path.faults.push_back({CertificateError::malformed, which + ": validity"});
      continue;
    }
    if (now + skew < *not_before) broken(CertificateError::not_yet_valid);
    if (now - skew >= *not_after) broken(CertificateError::expired);
    path.not_after = std::min(path.not_after, *not_after);
  }
}

Path examine_path(STACK_OF(X509) * chain, const TrustBundle& bundle, SystemTime now, std::chrono::seconds skew, bool all) {
  Path path;
  X509* const leaf = sk_X509_value(chain, 0);
  auto ctx = start_path(leaf, chain, bundle);
  if (!ctx) {
    path.faults.push_back({CertificateError::malformed, ctx.error().message});
    return path;
  }
  if (all) {
    X509_STORE_CTX_set_app_data(ctx->get(), &path.faults);
    X509_STORE_CTX_set_verify_cb(ctx->get(), note_and_go_on);
  }
  const bool found = X509_verify_cert(ctx->get()) == 1;
  const int reason = X509_STORE_CTX_get_error(ctx->get());
  ERR_clear_error();
  if (!found && path.faults.empty()) path.faults.push_back({error_of(reason), X509_verify_cert_error_string(reason)});
  for (Fault& fault : path.faults) {
    if (fault.error == CertificateError::untrusted || fault.error == CertificateError::issuer_not_ca)
      fault = why_untrusted(leaf, chain, bundle, std::move(fault));
  }
  if (found || all) check_path(X509_STORE_CTX_get0_chain(ctx->get()), now, std::clamp(skew, std::chrono::seconds{0}, max_clock_skew), path);
  return path;
}

Fault check_sizes(STACK_OF(X509) * chain) {
  const int presented = chain == nullptr ? 0 : sk_X509_num(chain);
  if (presented <= 0) return {CertificateError::not_presented, {}};
  if (static_cast<std::size_t>(presented) > max_chain_length)
    return {CertificateError::too_large, std::to_string(presented) + " certificates"};
  for (int i = 0; i < presented; ++i) {
    const int size = i2d_X509(sk_X509_value(chain, i), nullptr);
    if (size <= 0) return {CertificateError::malformed, {}};
    if (static_cast<std::size_t>(size) > max_certificate_bytes) return {CertificateError::too_large, std::to_string(size) + " bytes"};
  }
  return {};
}

}  // namespace

PeerVerification verify_peer(STACK_OF(X509) * chain, const TrustBundleSet& bundles, TlsEnd end, SystemTime now, std::chrono::seconds skew) {
  if (Fault fault = check_sizes(chain); fault.error != CertificateError::none) return reject(fault.error, std::move(fault.detail));
  X509* const leaf = sk_X509_value(chain, 0);
  LeafCheck check = check_leaf(leaf, end);
  if (check.error != CertificateError::none) return reject(check.error, std::move(check.detail));
  const TrustBundle* bundle = bundles.find(check.id.trust_domain());
  if (bundle == nullptr) return reject(CertificateError::unknown_trust_domain, std::string(check.id.trust_domain()));

  Path path = examine_path(chain, *bundle, now, skew, false);
  if (!path.faults.empty()) return reject(path.faults.front().error, std::move(path.faults.front().detail));
  auto serial = serial_of(leaf);
  if (!serial) return reject(CertificateError::malformed, serial.error().message);
  return PeerVerification{PeerIdentity{std::move(check.id), std::move(serial).value(), path.not_after}, CertificateError::none, {}};
}

std::string chain_order_fault(const std::vector<X509Ptr>& chain) {
  for (std::size_t i = 1; i < chain.size(); ++i) {
    const std::string which = "certificate " + std::to_string(i + 1) + ": ";
    constexpr const char* expected = "; expected the leaf first, then its intermediates";
    if (X509_check_ca(chain[i].get()) != 1) return which + "is not a CA certificate" + expected;
    if (X509_check_issued(chain[i].get(), chain[i - 1].get()) != X509_V_OK)
      return which + "did not issue the certificate before it" + expected;
  }
  return {};
}

std::vector<RuleResult> explain_svid(const std::vector<X509Ptr>& chain, const TrustBundleSet* bundles, TlsEnd end, SystemTime now,
                                     std::chrono::seconds skew) {
  std::vector<RuleResult> results;
  for (const CertificateRule& rule : certificate_rules()) results.push_back({rule.error, Outcome::not_checked, {}});
  const auto of = [&](CertificateError error) -> RuleResult& {
    return *std::find_if(results.begin(), results.end(), [error](const RuleResult& result) { return result.rule == error; });
  };
  const auto fail = [&](CertificateError error, std::string detail) {
    RuleResult& result = of(error);
    if (result.outcome == Outcome::failed) return;  // the first one is told
    result = {error, Outcome::failed, std::move(detail)};
  };
  const auto pass = [&](std::initializer_list<CertificateError> errors) {
    for (const CertificateError error : errors) {
      if (of(error).outcome == Outcome::not_checked) of(error).outcome = Outcome::passed;
    }
  };
  using enum CertificateError;
  const BorrowedX509StackPtr stack = borrow(chain);
  if (Fault fault = check_sizes(stack.get()); fault.error != none) {
    fail(fault.error, std::move(fault.detail));
    return results;
  }
  pass({not_presented, too_large});
  X509* const leaf = chain.front().get();
  for (RuleResult& result : explain_leaf(leaf, end)) of(result.rule) = std::move(result);
  if (const auto serial = serial_of(leaf); !serial) fail(malformed, serial.error().message);
  if (std::string fault = chain_order_fault(chain); !fault.empty()) fail(chain_order, std::move(fault));
  pass({chain_order});

  const bool has_id = of(no_workload_path).outcome == Outcome::passed;
  bool malformed_names = false;
  const auto uris = uri_sans(leaf, &malformed_names);
  const TrustBundle* bundle = nullptr;
  if (bundles != nullptr && has_id) {
    const auto domain = SpiffeId::parse(uris.front());
    bundle = bundles->find(domain->trust_domain());
    if (bundle == nullptr) fail(unknown_trust_domain, std::string(domain->trust_domain()));
    pass({unknown_trust_domain});
  }
  Path path;
  if (bundle != nullptr) {
    path = examine_path(stack.get(), *bundle, now, skew, true);
  } else {
    check_path(stack.get(), now, std::clamp(skew, std::chrono::seconds{0}, max_clock_skew), path);
  }
  for (Fault& fault : path.faults) fail(fault.error, std::move(fault.detail));
  pass({not_yet_valid, expired});
  const bool no_path = of(untrusted).outcome == Outcome::failed || of(issuer_not_ca).outcome == Outcome::failed ||
                       of(issuer_may_not_sign).outcome == Outcome::failed;
  if (bundle != nullptr && !no_path) {
    pass({untrusted, issuer_not_ca, issuer_may_not_sign, issuer_has_path, path_too_long, name_constraints, unknown_critical_extension,
          weak_key, weak_signature, bad_signature});
  }
  return results;
}

}  // namespace postern
