// Probes through the sidecar: their paths have one spelling, and where a redirect leads is something that a request line can hold.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "authz/app_probe.hpp"
#include "proxy/http_location.hpp"

namespace {

using namespace postern;

void check_target(const std::string& target) {
  if (!std::all_of(target.begin(), target.end(), [](char c) { return c > ' ' && c <= '~' && c != '#'; })) std::abort();
  if (request_target(target) != target) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto probe = parse_app_probe(text); probe && text_of(*probe) != text) std::abort();
  const std::string target = request_target("/" + std::string(text));
  check_target(target);
  const HttpStep step{false, {*IpAddress::parse("10.0.0.5"), Port{8080}}, "/a/b?c", "x"};
  const auto next = follow_location(step, text);
  if (!next || !*next) return 0;
  if ((*next)->server.address != step.server.address || (*next)->server.port.number == 0) std::abort();
  if (!(*next)->target.starts_with('/')) std::abort();
  check_target((*next)->target);
  return 0;
}
