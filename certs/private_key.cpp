#include "certs/private_key.hpp"

#include <malloc.h>
#include <openssl/crypto.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "certs/svid.hpp"

namespace postern {
namespace {

using Pkcs8Ptr = std::unique_ptr<PKCS8_PRIV_KEY_INFO, OpensslDeleter<PKCS8_PRIV_KEY_INFO, PKCS8_PRIV_KEY_INFO_free>>;

thread_local int key_scopes = 0;

void* allocate(std::size_t size, const char*, int) { return size == 0 ? nullptr : std::malloc(size); }

void release(void* memory, const char*, int) {
  if (memory != nullptr && key_scopes > 0) OPENSSL_cleanse(memory, malloc_usable_size(memory));
  std::free(memory);
}

void* reallocate(void* memory, std::size_t size, const char*, int) {
  if (size == 0) {
    release(memory, nullptr, 0);
    return nullptr;
  }
  if (memory == nullptr || key_scopes == 0) return std::realloc(memory, size);
  void* const moved = std::malloc(size);
  if (moved == nullptr) return nullptr;
  std::memcpy(moved, memory, std::min(size, malloc_usable_size(memory)));
  release(memory, nullptr, 0);
  return moved;
}

// Never asks a terminal: a sidecar has none.
int no_passphrase(char*, int, int, void*) { return -1; }

}  // namespace

bool wipe_key_memory() { return CRYPTO_set_mem_functions(allocate, reallocate, release) == 1; }

KeyScope::KeyScope() { ++key_scopes; }
KeyScope::~KeyScope() { --key_scopes; }

namespace {

Error too_long(std::size_t size) { return Error{"the private key has " + std::to_string(size) + " bytes; at most 65536 are read", {}}; }

// What TLS needs beyond 2030; RSA 2048, P-256 and Ed25519 pass.
Result<KeyPtr> strong_enough(KeyPtr key) {
  if (EVP_PKEY_get_security_bits(key.get()) < 112)
    return Error{"the private key is too weak; expected ECDSA P-256, Ed25519 or RSA of at least 2048 bits", {}};
  return key;
}

}  // namespace

Result<KeyPtr> parse_private_key(std::string_view pem) {
  if (pem.size() > max_key_bytes) return too_long(pem.size());
  const KeyScope scope;
  ERR_clear_error();
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  KeyPtr key(bio ? PEM_read_bio_PrivateKey(bio.get(), nullptr, no_passphrase, nullptr) : nullptr);
  if (!key) return openssl_error("no usable private key; expected one unencrypted PEM PRIVATE KEY block");
  return strong_enough(std::move(key));
}

Result<KeyPtr> parse_private_key_der(std::string_view der) {
  if (der.size() > max_key_bytes) return too_long(der.size());
  const KeyScope scope;
  ERR_clear_error();
  const auto* cursor = reinterpret_cast<const unsigned char*>(der.data());
  const auto* const end = cursor + der.size();
  const Pkcs8Ptr wrapped(d2i_PKCS8_PRIV_KEY_INFO(nullptr, &cursor, static_cast<long>(der.size())));
  KeyPtr key(wrapped && cursor == end ? EVP_PKCS82PKEY(wrapped.get()) : nullptr);
  if (!key) return openssl_error("no usable private key; expected one unencrypted DER PKCS#8 key");
  return strong_enough(std::move(key));
}

bool is_key_of(const X509* certificate, const EVP_PKEY* key) {
  const bool is = X509_check_private_key(certificate, key) == 1;
  ERR_clear_error();
  return is;
}

Result<void> forbid_dumps() {
  const rlimit none{0, 0};
  // RLIMIT_CORE does not stop a core_pattern that is a pipe; not being dumpable does.
  if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
    return Error{std::string("core dumps cannot be forbidden: ") + std::strerror(errno), {}};
  return {};
}

}  // namespace postern
