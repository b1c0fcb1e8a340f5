// HttpsUrl: where an HTTPS server is and what is asked of it (RFC 3986 section 3), without user or fragment.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace postern {

struct HttpsUrl {
  std::string host;  // a name, or an address (IPv6 without brackets)
  std::uint16_t port = 443;
  std::string path;  // with its query; empty: none is given

  bool operator==(const HttpsUrl&) const = default;
};

// "https://host[:port][/path][?query]". Errors say what is expected; another scheme is refused, as are user and fragment.
Result<HttpsUrl> parse_https_url(std::string_view text);

}  // namespace postern
