#include "control/webhook_certificate.hpp"

#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>

#include "certs/openssl.hpp"
#include "certs/private_key.hpp"

namespace postern {
namespace {

constexpr std::chrono::minutes kSkew{5};  // clocks of API servers may be behind ours

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long length = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<std::size_t>(length));
}

Result<std::string> pem_of(X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_X509(bio.get(), certificate) != 1) return openssl_error("the webhook's certificate cannot be written");
  return text_of(bio.get());
}

Result<std::string> pem_of(EVP_PKEY* key) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (!bio || PEM_write_bio_PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return openssl_error("the webhook's key cannot be written");
  }
  return text_of(bio.get());
}

bool set_time(ASN1_TIME* field, SystemTime time) { return ASN1_TIME_set(field, std::chrono::system_clock::to_time_t(time)) != nullptr; }

bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509V3_set_ctx_nodb(&context);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

// 127 random bits, never 0 (RFC 5280 section 4.1.2.2).
bool set_serial(X509* certificate) {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return false;
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7FU) | 0x40U);
  BIGNUM* number = BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr);
  const bool set = number != nullptr && BN_to_ASN1_INTEGER(number, X509_get_serialNumber(certificate)) != nullptr;
  BN_free(number);
  return set;
}

bool set_common_name(X509* certificate, const std::string& name) {
  return X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate), "CN", MBSTRING_UTF8,
                                    reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0) == 1;
}

}  // namespace

Result<PemPair> make_webhook_authority(SystemTime now) {
  const KeyScope scope;
  const KeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr made(X509_new());
  X509* certificate = made.get();
  const bool done =
      key && certificate != nullptr && X509_set_version(certificate, X509_VERSION_3) == 1 && set_serial(certificate) &&
      set_common_name(certificate, "postern webhook authority") &&
      X509_set_issuer_name(certificate, X509_get_subject_name(certificate)) == 1 &&
      set_time(X509_getm_notBefore(certificate), now - kSkew) &&
      set_time(X509_getm_notAfter(certificate), now + webhook_authority_lifetime) && X509_set_pubkey(certificate, key.get()) == 1 &&
      add_extension(certificate, certificate, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
      add_extension(certificate, certificate, NID_key_usage, "critical,keyCertSign") &&
      add_extension(certificate, certificate, NID_subject_key_identifier, "hash") && X509_sign(certificate, key.get(), EVP_sha256()) > 0;
  if (!done) return openssl_error("the webhook's authority cannot be made");
  auto certificate_pem = pem_of(certificate);
  if (!certificate_pem) return certificate_pem.error();
  auto key_pem = pem_of(key.get());
  if (!key_pem) return key_pem.error();
  return PemPair{*std::move(certificate_pem), *std::move(key_pem)};
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
  const KeyPtr key(EVP_EC_gen("P-256"));
  const X509Ptr made(X509_new());
  X509* certificate = made.get();
  const SystemTime end = std::min<SystemTime>(now + webhook_certificate_lifetime, *issuer_end);
  const bool done =
      key && certificate != nullptr && X509_set_version(certificate, X509_VERSION_3) == 1 && set_serial(certificate) &&
      set_common_name(certificate, "postern webhook") && X509_set_issuer_name(certificate, X509_get_subject_name(issuer)) == 1 &&
      set_time(X509_getm_notBefore(certificate), now - kSkew) && set_time(X509_getm_notAfter(certificate), end) &&
      X509_set_pubkey(certificate, key.get()) == 1 && add_extension(certificate, issuer, NID_basic_constraints, "critical,CA:FALSE") &&
      add_extension(certificate, issuer, NID_key_usage, "critical,digitalSignature") &&
      add_extension(certificate, issuer, NID_ext_key_usage, "serverAuth") &&
      add_extension(certificate, issuer, NID_subject_alt_name, alternatives) &&
      add_extension(certificate, issuer, NID_authority_key_identifier, "keyid") &&
      X509_sign(certificate, issuer_key->get(), EVP_sha256()) > 0;
  if (!done) return openssl_error("the webhook's certificate cannot be made for " + alternatives);
  auto certificate_pem = pem_of(certificate);
  if (!certificate_pem) return certificate_pem.error();
  auto key_pem = pem_of(key.get());
  if (!key_pem) return key_pem.error();
  return PemPair{*std::move(certificate_pem), *std::move(key_pem)};
}

std::string authorities_pem(const TrustBundle& bundle) {
  std::string out;
  for (const X509Ptr& authority : bundle.authorities()) {
    if (const auto pem = pem_of(authority.get())) out += *pem;
  }
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
