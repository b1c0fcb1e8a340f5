// UTF-8 (RFC 3629), one character at a time.
#pragma once

#include <cstddef>
#include <string_view>

namespace postern {

// The length of the well-formed character that starts at `at` (1 to 4), or 0: overlong forms, surrogates, code points past
// U+10FFFF and cut-off sequences are not well formed. REQUIRES: at < text.size()
std::size_t utf8_length(std::string_view text, std::size_t at);

}  // namespace postern
