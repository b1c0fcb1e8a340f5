// Owning handles for OpenSSL's objects, and its error queue as an Error.
#pragma once

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <memory>
#include <string>

#include "base/result.hpp"

namespace postern {

template <class T, void (*release)(T*)>
struct OpensslDeleter {
  void operator()(T* object) const noexcept { release(object); }
};

// Frees a connection without spoiling its session: OpenSSL marks the session of a connection that ends without close_notify
// as not resumable, which TLS 1.3 does not ask for (RFC 8446 section 6.1) and which one reset would do to every connection of that session.
void free_ssl(SSL* ssl) noexcept;
void free_bio(BIO* bio) noexcept;
void free_x509_stack(STACK_OF(X509) * stack) noexcept;           // with its certificates
void free_borrowed_x509_stack(STACK_OF(X509) * stack) noexcept;  // without them

using X509Ptr = std::unique_ptr<X509, OpensslDeleter<X509, X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslDeleter<EVP_PKEY, EVP_PKEY_free>>;
using SslPtr = std::unique_ptr<SSL, OpensslDeleter<SSL, free_ssl>>;
using SslCtxPtr = std::unique_ptr<SSL_CTX, OpensslDeleter<SSL_CTX, SSL_CTX_free>>;
using SessionPtr = std::unique_ptr<SSL_SESSION, OpensslDeleter<SSL_SESSION, SSL_SESSION_free>>;
using BioPtr = std::unique_ptr<BIO, OpensslDeleter<BIO, free_bio>>;
using X509StackPtr = std::unique_ptr<STACK_OF(X509), OpensslDeleter<STACK_OF(X509), free_x509_stack>>;
using BorrowedX509StackPtr = std::unique_ptr<STACK_OF(X509), OpensslDeleter<STACK_OF(X509), free_borrowed_x509_stack>>;

// One more reference to the same object.
X509Ptr share(X509* certificate);
KeyPtr share(EVP_PKEY* key);
SessionPtr share(SSL_SESSION* session);

// Drains this thread's error queue into one Error: "<what>: <reasons>".
Error openssl_error(std::string what);

}  // namespace postern
