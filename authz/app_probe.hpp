// AppProbe: a probe that the sidecar's health port makes in the place of the kubelet, as the injector writes it into the pod's spec, the
// record carries it, and the sidecar serves it (docs/admin.md).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.hpp"

namespace postern {

struct AppProbe {
  enum class Scheme : std::uint8_t { tcp, http, https };

  Scheme scheme = Scheme::tcp;
  bool hook = false;   // of a lifecycle handler: the kubelet asks only whether there was an answer at all
  Port port;           // of the application
  std::string target;  // what it is asked for, path and query; empty of tcp

  bool operator==(const AppProbe&) const = default;
};

// "/app-probe/5432", "/app-probe/http/8080/healthz?full=1", "/app-probe/hook/https/8443/drain": in one spelling only, so that an allowed
// probe is found by comparing texts.
std::string text_of(const AppProbe& probe);
std::optional<AppProbe> parse_app_probe(std::string_view path);

// What a HTTP client asks for, given an absolute path with its query: without a fragment, and with what no request line may hold escaped
// (RFC 3986 section 2.1). Where an escape is malformed, all of it is taken for a path, as Go's net/url has it for the kubelet.
std::string request_target(std::string_view path);

}  // namespace postern
