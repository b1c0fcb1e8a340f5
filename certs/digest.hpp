// SHA-256 (FIPS 180-4), as text.
#pragma once

#include <string>
#include <string_view>

namespace postern {

std::string sha256_hex(std::string_view bytes);

// What tells one copy of a resource of the control plane's stream from another (docs/stream.md): the first 16 bytes of its body's SHA-256.
std::string content_hash(std::string_view body);

}  // namespace postern
