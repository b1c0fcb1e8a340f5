// Certificate signing requests (PKCS #10, RFC 2986): of which nothing but the public key is ever used.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

inline constexpr std::size_t max_csr_bytes = 8U << 10;  // of PEM text; one with a P-384 key has some 400

// The public key of one PEM CERTIFICATE REQUEST, which its signature proves that the sender holds. EC P-256 and P-384 only; others are
// refused with the reason. Subject, names and extensions that it asks for mean nothing and are not looked at.
Result<KeyPtr> parse_csr(std::string_view pem);

// A request for this key that asks for nothing. Fails where OpenSSL does.
Result<std::string> make_csr(EVP_PKEY* key);

}  // namespace postern
