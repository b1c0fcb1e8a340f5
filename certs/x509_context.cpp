#include "certs/x509_context.hpp"

#include "certs/verify.hpp"

namespace postern {

Result<X509ContextPtr> make_x509_context(X509Svid svid, TrustBundleSet bundles, SystemTime now, std::string_view svid_from,
                                         std::string_view bundle_from) {
  const std::string where(svid_from);
  const auto verified = verify_peer(borrow(svid.chain).get(), bundles, TlsEnd::both, now, std::chrono::seconds{0});
  if (verified.error == CertificateError::expired)
    return Error{"the SVID has expired at " + utc_text(svid.not_after) + " (" + verified.detail + ")", where};
  if (verified.error == CertificateError::not_yet_valid) {
    return Error{"the SVID is valid only from " + utc_text(svid.not_before) + " (" + verified.detail + "); compare the clocks", where};
  }
  if (!verified.peer) {
    return Error{std::string(describe(verified.error)) + " (" + verified.detail + "); checked against " + std::string(bundle_from), where};
  }
  return std::make_shared<const X509Context>(X509Context{std::move(svid), std::move(bundles)});
}

}  // namespace postern
