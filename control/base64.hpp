// Base64 (RFC 4648 section 4), as Secrets and kubeconfig files hold what is not text.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

namespace postern {

std::string encode_base64(std::string_view bytes);
// Nothing: not base64, empty, or more than `most` bytes.
std::optional<std::string> decode_base64(std::string_view text, std::size_t most);

}  // namespace postern
