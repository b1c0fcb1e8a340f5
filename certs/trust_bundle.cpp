#include "certs/trust_bundle.hpp"

#include <openssl/sha.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <stdexcept>

#include "certs/spiffe_bundle.hpp"
#include "certs/svid.hpp"

namespace postern {
namespace {

ContentHash sha256(const std::string& text) {
  ContentHash hash{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash.data());
  return hash;
}

std::string_view view(const ContentHash& hash) { return {reinterpret_cast<const char*>(hash.data()), hash.size()}; }

}  // namespace

Result<TrustBundle> TrustBundle::parse(std::string_view text, TrustDomain domain) {
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  const bool json = first != std::string_view::npos && text[first] == '{';
  if (json) {
    auto bundle = parse_spiffe_bundle(text);
    if (!bundle) return Error{"trust bundle: " + bundle.error().text(), {}};
    if (bundle->authorities.empty()) return Error{"trust bundle: keys: holds no key for X.509-SVIDs; expected one with use x509-svid", {}};
    return make(std::move(bundle->authorities), std::move(domain));
  }
  auto certificates = parse_certificates_pem(text, max_authorities);
  if (!certificates) return Error{"trust bundle: " + certificates.error().text(), {}};
  return make(std::move(certificates).value(), std::move(domain));
}

Result<TrustBundle> TrustBundle::parse_der(std::string_view der, TrustDomain domain) {
  auto certificates = parse_certificates_der(der, max_authorities);
  if (!certificates) return Error{"trust bundle: " + certificates.error().text(), {}};
  return make(std::move(certificates).value(), std::move(domain));
}

Result<TrustBundle> TrustBundle::make(std::vector<X509Ptr> certificates, TrustDomain domain) {
  std::map<ContentHash, X509Ptr> authorities;  // sorted by fingerprint: neither order nor repetition changes the hash
  for (std::size_t i = 0; i < certificates.size(); ++i) {
    X509* const certificate = certificates[i].get();
    const std::string which = "trust bundle: certificate " + std::to_string(i + 1);
    // X509-SVID section 4.1: an authority has CA true; 1 is "a v3 CA by its basic constraints, and keyCertSign if it names key usages".
    if (X509_check_ca(certificate) != 1)
      return Error{which + " is not a CA certificate that may sign; expected basicConstraints CA:TRUE and keyUsage keyCertSign", {}};
    if ((X509_get_extension_flags(certificate) & EXFLAG_INVALID) != 0) return Error{which + " has an invalid extension", {}};
    ContentHash fingerprint{};
    unsigned int size = 0;
    if (X509_digest(certificate, EVP_sha256(), fingerprint.data(), &size) != 1) return openssl_error(which);
    authorities.try_emplace(fingerprint, std::move(certificates[i]));
  }

  TrustBundle bundle;
  bundle.stack_.reset(sk_X509_new_null());
  if (!bundle.stack_) throw std::bad_alloc();
  std::string content = domain.text() + '\n';
  for (auto& [fingerprint, certificate] : authorities) {
    content += view(fingerprint);
    if (sk_X509_push(bundle.stack_.get(), certificate.get()) == 0) throw std::bad_alloc();
    bundle.authorities_.push_back(std::move(certificate));
  }
  bundle.domain_ = std::move(domain);
  bundle.hash_ = sha256(content);
  return bundle;
}

void TrustBundleSet::add(TrustBundle bundle) { add(std::make_shared<const TrustBundle>(std::move(bundle))); }

void TrustBundleSet::add(std::shared_ptr<const TrustBundle> bundle) {
  std::string domain = bundle->domain().text();
  bundles_.insert_or_assign(std::move(domain), std::move(bundle));
}

const TrustBundle* TrustBundleSet::find(std::string_view domain) const {
  const auto found = bundles_.find(domain);
  return found == bundles_.end() ? nullptr : found->second.get();
}

ContentHash TrustBundleSet::hash() const {
  std::string content;
  for (const auto& [domain, bundle] : bundles_) content += view(bundle->hash());
  return sha256(content);
}

}  // namespace postern
