#include "certs/csr.hpp"

#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <array>

namespace postern {
namespace {

using RequestPtr = std::unique_ptr<X509_REQ, OpensslDeleter<X509_REQ, X509_REQ_free>>;

int no_passphrase(char*, int, int, void*) { return -1; }

Result<void> check_key(const EVP_PKEY* key) {
  constexpr std::string_view expected = "expected an EC key on P-256 or P-384";
  if (EVP_PKEY_get_base_id(key) != EVP_PKEY_EC) {
    const char* name = EVP_PKEY_get0_type_name(key);
    return Error{"the CSR's key is of the type " + std::string(name == nullptr ? "unknown" : name) + "; " + std::string(expected), {}};
  }
  std::array<char, 64> group{};
  std::size_t size = 0;
  // A curve by its parameters instead of its name is no curve that we know (CVE-2020-0601 was one of those).
  if (EVP_PKEY_get_group_name(key, group.data(), group.size(), &size) != 1 || EVP_PKEY_get_field_type(key) != NID_X9_62_prime_field) {
    ERR_clear_error();
    return Error{"the CSR's key is on a curve without a name; " + std::string(expected), {}};
  }
  const std::string_view name(group.data(), size);
  if (name == SN_X9_62_prime256v1 || name == SN_secp384r1) return {};
  return Error{"the CSR's key is on the curve " + std::string(name) + "; " + std::string(expected), {}};
}

}  // namespace

Result<KeyPtr> parse_csr(std::string_view pem) {
  if (pem.size() > max_csr_bytes) {
    return Error{"the CSR has " + std::to_string(pem.size()) + " bytes; at most " + std::to_string(max_csr_bytes) + " are read", {}};
  }
  ERR_clear_error();
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  const RequestPtr request(bio ? PEM_read_bio_X509_REQ(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  if (!request) return openssl_error("no CSR can be read; expected one PEM CERTIFICATE REQUEST");
  EVP_PKEY* const key = X509_REQ_get0_pubkey(request.get());
  if (key == nullptr) return openssl_error("the CSR has no key that can be read");
  if (auto allowed = check_key(key); !allowed) return allowed.error();
  // RFC 2986 section 4.2: the signature says that whoever asks holds the private key.
  if (X509_REQ_verify(request.get(), key) != 1) {
    ERR_clear_error();
    return Error{"the CSR's signature is not that of its key", {}};
  }
  return share(key);
}

Result<std::string> make_csr(EVP_PKEY* key) {
  ERR_clear_error();
  const RequestPtr request(X509_REQ_new());
  const BioPtr bio(BIO_new(BIO_s_mem()));
  if (!request || !bio || X509_REQ_set_version(request.get(), X509_REQ_VERSION_1) != 1 || X509_REQ_set_pubkey(request.get(), key) != 1 ||
      X509_REQ_sign(request.get(), key, EVP_sha256()) <= 0 || PEM_write_bio_X509_REQ(bio.get(), request.get()) != 1) {
    return openssl_error("cannot make a CSR");
  }
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return std::string(data, static_cast<std::size_t>(size));
}

}  // namespace postern
