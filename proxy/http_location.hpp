// Where a redirect of an application leads (RFC 9110 section 10.2.2, RFC 3986 section 5.2): for the sidecar that follows it in the
// kubelet's place. No I/O.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "base/ip.hpp"
#include "base/result.hpp"

namespace postern {

// One request of a chain of redirects.
struct HttpStep {
  bool tls = false;
  SocketAddress server;
  std::string target;  // path and query
  std::string host;    // of the Host header; a location that names none leaves it as it was
};

// Of a Location header that came in answer to `step`; std::nullopt: it leads to another host, as the kubelet compares them (by the address
// in the URL, whatever the port). Errors: what is no location of ours to follow.
Result<std::optional<HttpStep>> follow_location(const HttpStep& step, std::string_view location);

}  // namespace postern
