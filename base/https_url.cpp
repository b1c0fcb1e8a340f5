#include "base/https_url.hpp"

#include <algorithm>
#include <charconv>

#include "base/ip.hpp"

namespace postern {
namespace {

bool is_name(std::string_view host) {
  constexpr std::size_t longest_name = 253;  // RFC 1035 section 2.3.4
  return host.size() <= longest_name && std::all_of(host.begin(), host.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_';
         });
}

}  // namespace

Result<HttpsUrl> parse_https_url(std::string_view text) {
  constexpr std::string_view scheme = "https://";
  if (!text.starts_with(scheme)) return Error{"expected https://HOST[:PORT]", {}};
  std::string_view rest = text.substr(scheme.size());
  if (!std::all_of(rest.begin(), rest.end(), [](char c) { return c > ' ' && c <= '~' && c != '#' && c != '@'; }))
    return Error{"expected https://HOST[:PORT][/PATH] without user, fragment or spaces", {}};
  HttpsUrl url;
  const std::size_t end = std::min(rest.find_first_of("/?"), rest.size());
  url.path = rest.substr(end);
  rest = rest.substr(0, end);
  std::string_view port;
  if (rest.starts_with('[')) {
    const std::size_t bracket = rest.find(']');
    if (bracket == std::string_view::npos || !IpAddress::parse(std::string(rest.substr(1, bracket - 1))))
      return Error{"expected an IPv6 address in the brackets", {}};
    url.host = rest.substr(1, bracket - 1);
    port = rest.substr(bracket + 1);
  } else {
    const std::size_t colon = std::min(rest.find(':'), rest.size());
    url.host = rest.substr(0, colon);
    port = rest.substr(colon);
    if (!is_name(url.host)) return Error{"expected https://HOST[:PORT] with a host name or address", {}};
  }
  if (url.host.empty()) return Error{"expected https://HOST[:PORT] with a host name or address", {}};
  if (port.empty()) return url;
  const char* const last = port.data() + port.size();
  const auto [parsed, failed] = std::from_chars(port.data() + 1, last, url.port);
  if (port[0] != ':' || failed != std::errc() || parsed != last || url.port == 0)
    return Error{"expected a port between 1 and 65535 after the host", {}};
  return url;
}

}  // namespace postern
