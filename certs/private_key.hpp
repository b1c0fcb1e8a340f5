// Private keys: read and held so that no copy stays behind in memory (docs/identity-keys.md).
#pragma once

#include <string_view>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

// One unencrypted PEM block: ECDSA, Ed25519 or RSA of at least 112 bits of security (NIST SP 800-57). Never asks for a passphrase. Errors
// hold nothing of the text.
Result<KeyPtr> parse_private_key(std::string_view pem);
// The same of one PKCS#8 key in DER (RFC 5958), not encrypted, and nothing after it.
Result<KeyPtr> parse_private_key_der(std::string_view der);

bool is_key_of(const X509* certificate, const EVP_PKEY* key);

// Makes KeyScope effective; once, before anything else of OpenSSL is used. False: too late (OpenSSL has allocated already).
bool wipe_key_memory();

// While one lives, whatever OpenSSL frees on this thread is overwritten first: its decoders and encoders (3.0) free the PEM and DER text of
// keys as it is.
class KeyScope {
 public:
  KeyScope();
  ~KeyScope();
  KeyScope(const KeyScope&) = delete;
  KeyScope& operator=(const KeyScope&) = delete;
};

// No core dump of this process, whatever the node's settings are, and no debugger that is not root's (prctl(2) PR_SET_DUMPABLE,
// RLIMIT_CORE).
Result<void> forbid_dumps();

}  // namespace postern
