// Keys that stay in a PKCS #11 token, by their URI (RFC 7512), through OpenSSL's engine "pkcs11" (Debian: libengine-pkcs11-openssl).
#pragma once

#include <string_view>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

bool is_pkcs11_uri(std::string_view text);

// "pkcs11:token=postern;object=ca?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/run/secrets/pin". module-path and a PIN
// (pin-source, pin-value) must be named; nobody is asked for one. White space around the URI is not counted. The key signs inside the
// token. Errors hold nothing of the URI's query.
Result<KeyPtr> load_pkcs11_key(std::string_view uri);

}  // namespace postern
