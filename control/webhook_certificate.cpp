#include "control/webhook_certificate.hpp"

#include <openssl/x509v3.h>

#include <algorithm>
#include <string_view>

#include "certs/certificate_builder.hpp"
#include "certs/private_key.hpp"

namespace postern {
namespace {

constexpr std::chrono::minutes skew{5};  // clocks of API servers may be behind ours

Result<PemPair> pem_pair(const X509* certificate, const EVP_PKEY* key) {
  PemPair pair{pem_of(certificate), pem_of(key)};
  if (pair.certificate.empty() || pair.key.empty()) return openssl_error("the webhook's certificate or key cannot be written");
  return pair;
}

}  // namespace

Result<PemPair> make_webhook_authority(SystemTime now) {
  const KeyScope scope;
  const KeyPtr key = new_p256_key();
  const X509Ptr made =
      unsigned_certificate("CN", "postern webhook authority", nullptr, key.get(), now - skew, now + webhook_authority_lifetime);
  X509* certificate = made.get();
  const bool done =
      key && certificate != nullptr && add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
      add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign") &&
      add_extension(certificate, certificate, NID_subject_key_identifier, "hash") && X509_sign(certificate, key.get(), EVP_sha256()) > 0;
  if (!done) return openssl_error("the webhook's authority cannot be made");
  return pem_pair(certificate, key.get());
}

Result<PemPair> make_webhook_certificate(const PemPair& authority, const std::vector<std::string>& names, SystemTime now) {
  const KeyScope scope;
  auto issuers = parse_certificates_pem(authority.certificate, max_authorities);
  if (!issuers) return issuers.error();
  if (issuers->empty() || names.empty()) return Error{"expected an authority and a name for the webhook's certificate", {}};
  X509* issuer = issuers->front().get();
  const auto issuer_key = parse_private_key(authority.key);
  if (!issuer_key) return issuer_key.error();
  const auto issuer_end = not_after_of(issuer);
  if (!issuer_end) return issuer_end.error();
  std::string alternatives;
  for (const std::string& name : names) alternatives.append(alternatives.empty() ? "" : ",").append("DNS:").append(name);
  const KeyPtr key = new_p256_key();
  const SystemTime end = std::min<SystemTime>(now + webhook_certificate_lifetime, *issuer_end);
  const X509Ptr made = unsigned_certificate("CN", "postern webhook", issuer, key.get(), now - skew, end);
  X509* certificate = made.get();
  const bool done = key && certificate != nullptr && add_extension(certificate, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
                    add_extension(certificate, issuer, NID_key_usage, "critical,digitalSignature") &&
                    add_extension(certificate, issuer, NID_ext_key_usage, "serverAuth") &&
                    add_extension(certificate, issuer, NID_subject_alt_name, alternatives) &&
                    add_extension(certificate, issuer, NID_authority_key_identifier, "keyid") &&
                    X509_sign(certificate, issuer_key->get(), EVP_sha256()) > 0;
  if (!done) return openssl_error("the webhook's certificate cannot be made for " + alternatives);
  return pem_pair(certificate, key.get());
}

std::string authorities_pem(const TrustBundle& bundle) {
  std::string out;
  for (const X509Ptr& authority : bundle.authorities()) out += pem_of(authority.get());
  return out;
}

bool is_due_for_renewal(const std::string& certificate_pem, SystemTime now) {
  const auto certificates = parse_certificates_pem(certificate_pem, max_authorities);
  if (!certificates || certificates->empty()) return true;
  const auto begin = not_before_of(certificates->front().get());
  const auto end = not_after_of(certificates->front().get());
  return !begin || !end || *end - now < (*end - *begin) / 3;
}

}  // namespace postern
