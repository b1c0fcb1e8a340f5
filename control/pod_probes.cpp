#include "control/pod_probes.hpp"

#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "authz/workload.hpp"
#include "base/document_writer.hpp"
#include "control/sidecar_spec.hpp"

namespace postern {
namespace {

std::optional<std::int64_t> in_range(std::int64_t number) { return number >= 1 && number <= 65535 ? std::optional(number) : std::nullopt; }

// pkg/probe of the kubelet, ResolveContainerPort: the name of a port of this container, else a number in a string.
std::optional<std::int64_t> resolve(const Node& port, const Node& container) {
  if (port.is(Node::Kind::integer)) return in_range(port.integer);
  const Node* ports = container.find("ports");
  for (const Node& item : ports == nullptr ? std::vector<Node>() : ports->items) {
    const Node* name = item.find("name");
    const Node* number = item.find("containerPort");
    if (name != nullptr && number != nullptr && name->scalar == port.scalar && !name->scalar.empty()) return in_range(number->integer);
  }
  std::int64_t number = 0;
  const char* end = port.scalar.data() + port.scalar.size();
  const auto [stop, error] = std::from_chars(port.scalar.data(), end, number);
  return error == std::errc{} && stop == end ? in_range(number) : std::nullopt;
}

void rewrite(Node& handler, const Node& container, std::string_view what, std::vector<std::string>& warnings) {
  const Node* tcp = handler.find("tcpSocket");
  if (tcp == nullptr || !tcp->is(Node::Kind::mapping)) return;
  const Node* host = tcp->find("host");
  if (host != nullptr && !host->scalar.empty()) return;
  const Node* port = tcp->find("port");
  const auto number = port == nullptr ? std::nullopt : resolve(*port, container);
  if (!number) {
    warnings.push_back(std::string(what) + ": its container has no port " +
                       (port == nullptr ? "\"\"" : "\"" + port->scalar.substr(0, 64) + "\"") +
                       "; the probe cannot work and is left as it is");
    return;
  }
  Node http = make_object({{"path", make_text(std::string(app_probe_path) + std::to_string(*number))},
                           {"port", make_integer(sidecar_health_port.number)},
                           {"scheme", make_text("HTTP")}});
  for (auto& [key, value] : handler.fields) {
    if (key != "tcpSocket") continue;
    key = "httpGet";
    value = std::move(http);
    return;
  }
}

}  // namespace

void rewrite_probes(Node& container, std::vector<std::string>& warnings) {
  const Node* name = container.find("name");
  const std::string prefix = "container " + (name == nullptr ? std::string() : name->scalar) + ", ";
  const Node before = container;  // ports are looked up while handlers change
  for (auto& [key, value] : container.fields) {
    if (key == "livenessProbe" || key == "readinessProbe" || key == "startupProbe") rewrite(value, before, prefix + key, warnings);
    if (key != "lifecycle") continue;
    for (auto& [hook, handler] : value.fields) rewrite(handler, before, prefix + "lifecycle." + hook, warnings);
  }
}

}  // namespace postern
