#include "proxy/http_location.hpp"

#include <algorithm>
#include <charconv>

#include "authz/app_probe.hpp"

namespace postern {
namespace {

constexpr std::size_t longest_location = 8U << 10;

// RFC 3986 section 5.2.4.
std::string without_dot_segments(std::string_view path) {
  std::string out;
  while (!path.empty()) {
    const std::size_t end = std::min(path.find('/', 1), path.size());
    const std::string_view segment = path.substr(0, end);  // with its slash before it
    path.remove_prefix(end);
    const bool is_up = segment == "/..";
    if (is_up) out.erase(std::min(out.rfind('/'), out.size()));
    if (is_up || segment == "/.") {
      if (path.empty()) out += '/';
    } else {
      out += segment;
    }
  }
  return out.empty() ? "/" : out;
}

// "host[:port]". std::nullopt: another host.
Result<std::optional<SocketAddress>> server_of(std::string_view authority, const IpAddress& ours, bool tls) {
  if (authority.find('@') != std::string_view::npos) return Error{"its Location holds a user", {}};
  const std::size_t bracket = authority.starts_with('[') ? authority.find(']') : 0;
  const std::size_t colon = bracket == std::string_view::npos ? bracket : authority.find(':', bracket);
  std::string_view host = authority.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  SocketAddress server{ours, Port{static_cast<std::uint16_t>(tls ? 443 : 80)}};
  if (colon != std::string_view::npos && colon + 1 < authority.size()) {
    const std::string_view port = authority.substr(colon + 1);
    const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), server.port.number);
    if (error != std::errc() || end != port.data() + port.size() || server.port.number == 0)
      return Error{"its Location has no valid port", {}};
  }
  const auto address = IpAddress::parse(std::string(host));
  if (!address || *address != ours) return std::optional<SocketAddress>();
  return std::optional(server);
}

}  // namespace

Result<std::optional<HttpStep>> follow_location(const HttpStep& step, std::string_view location) {
  if (location.size() > longest_location) return Error{"its Location is too long", {}};
  HttpStep next = step;
  std::string_view rest = location.substr(0, location.find('#'));
  const std::size_t colon = rest.substr(0, rest.find_first_of("/?")).find(':');
  bool is_absolute = false;
  if (colon != std::string_view::npos) {
    std::string scheme(rest.substr(0, colon));
    std::transform(scheme.begin(), scheme.end(), scheme.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? char(c - 'A' + 'a') : c; });
    if (scheme != "http" && scheme != "https") return Error{"its Location is neither http nor https", {}};
    next.tls = scheme == "https";
    rest.remove_prefix(colon + 1);
    if (!rest.starts_with("//")) return Error{"its Location names no host", {}};
    is_absolute = true;
  }
  const bool has_authority = rest.starts_with("//");
  if (has_authority) {
    const std::size_t end = std::min(rest.find_first_of("/?", 2), rest.size());
    const std::string_view authority = rest.substr(2, end - 2);
    auto server = server_of(authority, step.server.address, next.tls);
    if (!server) return server.error();
    if (!*server) return std::optional<HttpStep>();
    next.server = **server;
    // Go's client sends on a Host of the caller's own after a relative Location only.
    if (is_absolute) next.host = authority;
    rest.remove_prefix(end);
  }
  const std::string_view base = std::string_view(step.target).substr(0, step.target.find('?'));
  const std::size_t mark = std::min(rest.find('?'), rest.size());
  std::string path(rest.substr(0, mark));
  if (path.empty() && has_authority) path = "/";
  if (path.empty()) {
    path = base;
    if (mark == rest.size()) rest = std::string_view(step.target).substr(std::min(base.size(), step.target.size()));
  } else if (!path.starts_with('/')) {
    path.insert(0, base.substr(0, base.rfind('/') + 1));
  }
  const std::string_view query = rest.substr(std::min(rest.find('?'), rest.size()));
  next.target = request_target(without_dot_segments(path) + std::string(query));
  return std::optional(std::move(next));
}

}  // namespace postern
