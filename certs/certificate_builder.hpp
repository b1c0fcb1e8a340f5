// What makes certificates: the steps that the built-in authority and the tests' one share. Each says false, or null, where OpenSSL refuses
// (its error queue says why).
#pragma once

#include <string>
#include <string_view>

#include "certs/openssl.hpp"
#include "certs/svid.hpp"

namespace postern {

KeyPtr new_p256_key();
std::string pem_of(const X509* certificate);
std::string pem_of(const EVP_PKEY* key);  // PKCS #8, unencrypted; empty: it could not be written

// Version 3, a random serial number (RFC 5280 section 4.1.2.2: positive, at most 20 octets; here 127 bits), the names, validity and public
// key; no extension, no signature. `issuer` null: self-signed. `attribute` is that of the subject's one name: "CN", "O".
X509Ptr unsigned_certificate(const char* attribute, std::string_view name, const X509* issuer, EVP_PKEY* public_key, SystemTime not_before,
                             SystemTime not_after);
// An extension in OpenSSL's configuration syntax. `issuer`: of the certificate, itself where it is self-signed.
bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value);

}  // namespace postern
