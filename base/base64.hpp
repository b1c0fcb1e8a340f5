// Base64 with padding (RFC 4648 section 4): how the Kubernetes API writes bytes.
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace postern {

std::string to_base64(std::string_view bytes);
// Nothing where the text is anything else, white space included.
std::optional<std::string> from_base64(std::string_view text);

}  // namespace postern
