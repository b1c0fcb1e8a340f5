#include "certs/certificate_builder.hpp"

#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <array>

#include "certs/private_key.hpp"

namespace postern {
namespace {

using BignumPtr = std::unique_ptr<BIGNUM, OpensslDeleter<BIGNUM, BN_free>>;

std::string text_of(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return {data, static_cast<std::size_t>(size)};
}

bool set_serial(X509* certificate) {
  std::array<unsigned char, 16> bytes{};
  if (RAND_bytes(bytes.data(), static_cast<int>(bytes.size())) != 1) return false;
  bytes[0] = static_cast<unsigned char>((bytes[0] & 0x7FU) | 0x40U);  // positive, and always of the same length
  const BignumPtr number(BN_bin2bn(bytes.data(), static_cast<int>(bytes.size()), nullptr));
  return number && BN_to_ASN1_INTEGER(number.get(), X509_get_serialNumber(certificate)) != nullptr;
}

bool set_time(ASN1_TIME* field, SystemTime time) { return ASN1_TIME_set(field, std::chrono::system_clock::to_time_t(time)) != nullptr; }

}  // namespace

KeyPtr new_p256_key() { return KeyPtr(EVP_EC_gen("P-256")); }

std::string pem_of(const X509* certificate) {
  const BioPtr bio(BIO_new(BIO_s_mem()));
  return bio && PEM_write_bio_X509(bio.get(), certificate) == 1 ? text_of(bio.get()) : std::string();
}

std::string pem_of(const EVP_PKEY* key) {
  const KeyScope scope;
  const BioPtr bio(BIO_new(BIO_s_secmem()));
  const bool written = bio && PEM_write_bio_PKCS8PrivateKey(bio.get(), key, nullptr, nullptr, 0, nullptr, nullptr) == 1;
  return written ? text_of(bio.get()) : std::string();
}

X509Ptr unsigned_certificate(const char* attribute, std::string_view name, const X509* issuer, EVP_PKEY* public_key, SystemTime not_before,
                             SystemTime not_after) {
  X509Ptr certificate(X509_new());
  if (!certificate || X509_set_version(certificate.get(), X509_VERSION_3) != 1 || !set_serial(certificate.get())) return nullptr;
  if (!set_time(X509_getm_notBefore(certificate.get()), not_before) || !set_time(X509_getm_notAfter(certificate.get()), not_after))
    return nullptr;
  X509_NAME* subject = X509_get_subject_name(certificate.get());
  if (X509_NAME_add_entry_by_txt(subject, attribute, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(name.data()),
                                 static_cast<int>(name.size()), -1, 0) != 1 ||
      X509_set_issuer_name(certificate.get(), issuer == nullptr ? subject : X509_get_subject_name(issuer)) != 1 ||
      X509_set_pubkey(certificate.get(), public_key) != 1) {
    return nullptr;
  }
  return certificate;
}

bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX ctx;
  X509V3_set_ctx_nodb(&ctx);
  X509V3_set_ctx(&ctx, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &ctx, nid, value.c_str());
  const bool added = extension != nullptr && X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

}  // namespace postern
