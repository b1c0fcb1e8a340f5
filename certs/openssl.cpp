#include "certs/openssl.hpp"

#include <openssl/err.h>

namespace postern {

void free_ssl(SSL* ssl) noexcept {
  if (ssl != nullptr) SSL_set_shutdown(ssl, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  SSL_free(ssl);
}

void free_bio(BIO* bio) noexcept { BIO_free_all(bio); }
void free_x509_stack(STACK_OF(X509) * stack) noexcept { sk_X509_pop_free(stack, X509_free); }
void free_borrowed_x509_stack(STACK_OF(X509) * stack) noexcept { sk_X509_free(stack); }

X509Ptr share(X509* certificate) {
  X509_up_ref(certificate);
  return X509Ptr(certificate);
}

KeyPtr share(EVP_PKEY* key) {
  EVP_PKEY_up_ref(key);
  return KeyPtr(key);
}

SessionPtr share(SSL_SESSION* session) {
  SSL_SESSION_up_ref(session);
  return SessionPtr(session);
}

Error openssl_error(std::string what) {
  Error error{std::move(what), {}};
  const char* separator = ": ";
  const char* data = nullptr;
  int flags = 0;
  while (const unsigned long code = ERR_get_error_all(nullptr, nullptr, nullptr, &data, &flags)) {
    const char* reason = ERR_reason_error_string(code);
    error.message += separator;
    error.message += reason != nullptr ? reason : "error " + std::to_string(ERR_GET_REASON(code));
    if ((flags & ERR_TXT_STRING) != 0 && data != nullptr && *data != '\0') error.message.append(" (").append(data).append(")");
    separator = "; ";
  }
  return error;
}

}  // namespace postern
