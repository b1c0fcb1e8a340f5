// Serial numbers of certificates as people write them (RFC 5280 section 4.1.2.2).
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace postern {

// "0a:1b" or "0A1B": upper case, without colons and leading zero bytes, as `openssl x509 -serial`, the access log and the admin socket
// print it. At most 40 bytes; anything but hexadecimal digits is refused.
Result<std::string> canonical_serial(std::string_view text);

}  // namespace postern
