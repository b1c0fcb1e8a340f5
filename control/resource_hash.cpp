#include "control/resource_hash.hpp"

#include <openssl/sha.h>

#include <array>
#include <memory>
#include <utility>

namespace postern {

std::string content_hash(std::string_view body) {
  constexpr std::string_view digits = "0123456789abcdef";
  constexpr std::size_t kept = 16;
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  SHA256(reinterpret_cast<const unsigned char*>(body.data()), body.size(), digest.data());
  std::string text;
  text.reserve(2 * kept);
  for (std::size_t i = 0; i < kept; ++i) {
    text += digits[digest[i] >> 4U];
    text += digits[digest[i] & 15U];
  }
  return text;
}

ResourcePtr make_resource(std::string name, std::string body) {
  auto resource = std::make_shared<Resource>();
  resource->hash = content_hash(body);
  resource->name = std::move(name);
  resource->body = std::move(body);
  return resource;
}

}  // namespace postern
