#include "control/pod_probes.hpp"

#include <array>
#include <charconv>
#include <optional>
#include <string_view>

#include "authz/app_probe.hpp"
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

std::string scalar_of(const Node& object, std::string_view key) {
  const Node* found = object.find(key);
  return found == nullptr ? std::string() : found->scalar;
}

// The kubelet's formatURL, but for a path that Go's net/url would take for another server's address, or for no path at all.
std::optional<std::string> target_of(std::string path) {
  if (path.starts_with("//")) return std::nullopt;
  if (!path.starts_with('/')) {
    if (path.substr(0, path.find('/')).find(':') != std::string::npos) return std::nullopt;
    path.insert(path.begin(), '/');
  }
  return request_target(path);
}

// One probe or lifecycle handler while it is rewritten.
class Handler {
 public:
  Handler(Node& node, const Node& container, bool is_hook, std::string what, std::vector<std::string>& warnings)
      : node_(node), container_(container), is_hook_(is_hook), what_(std::move(what)), warnings_(warnings) {}

  void rewrite() {
    if (const Node* tcp = action("tcpSocket")) {
      // A tcpSocket lifecycle handler works in no Kubernetes; here it does.
      if (const auto port = application_port(*tcp)) put("tcpSocket", AppProbe{AppProbe::Scheme::tcp, false, *port, {}});
    } else if (const Node* http = action("httpGet")) {
      rewrite_http(*http);
    }
  }

 private:
  const Node* action(std::string_view kind) const {
    const Node* found = node_.find(kind);
    return found != nullptr && found->is(Node::Kind::mapping) ? found : nullptr;
  }

  void warn(const std::string& why) { warnings_.push_back(what_ + ": " + why); }

  // Nothing where it is to be left as it is; then a warning says why.
  std::optional<Port> application_port(const Node& action) {
    if (const std::string host = scalar_of(action, "host"); !host.empty()) {
      warn("it names the host \"" + host.substr(0, 64) +
           "\", so the node asks there and not the sidecar; remove host unless it is another pod's or server's");
      return std::nullopt;
    }
    const Node* port = action.find("port");
    const auto number = port == nullptr ? std::nullopt : resolve(*port, container_);
    if (number) return Port{static_cast<std::uint16_t>(*number)};
    warn("its container has no port \"" + scalar_of(action, "port").substr(0, 64) + "\"; the probe cannot work and is left as it is");
    return std::nullopt;
  }

  void rewrite_http(const Node& http) {
    const auto port = application_port(http);
    if (!port || *port == sidecar_health_port) return;  // it asks the sidecar already
    const auto target = target_of(scalar_of(http, "path"));
    if (!target) return warn("its path is no absolute path; begin it with one / so that the sidecar can ask for it in the node's place");
    const auto scheme = scalar_of(http, "scheme") == "HTTPS" ? AppProbe::Scheme::https : AppProbe::Scheme::http;
    put("httpGet", AppProbe{scheme, is_hook_, *port, *target});
  }

  // httpHeaders stay as they are: the sidecar passes them on.
  void put(std::string_view kind, const AppProbe& probe) {
    for (auto& [key, value] : node_.fields) {
      if (key != kind) continue;
      key = "httpGet";
      Node http = make_object(
          {{"path", make_text(text_of(probe))}, {"port", make_integer(sidecar_health_port.number)}, {"scheme", make_text("HTTP")}});
      if (const Node* headers = value.find("httpHeaders")) field_of(http, "httpHeaders") = *headers;
      value = std::move(http);
      return;
    }
  }

  Node& node_;
  const Node& container_;
  bool is_hook_;
  std::string what_;
  std::vector<std::string>& warnings_;
};

}  // namespace

void rewrite_probes(Node& container, std::vector<std::string>& warnings) {
  const Node* name = container.find("name");
  const std::string prefix = "container " + (name == nullptr ? std::string() : name->scalar) + ", ";
  const Node before = container;  // ports are looked up while handlers change
  for (auto& [key, value] : container.fields) {
    if (key == "livenessProbe" || key == "readinessProbe" || key == "startupProbe")
      Handler(value, before, false, prefix + key, warnings).rewrite();
    if (key != "lifecycle") continue;
    for (auto& [hook, handler] : value.fields) Handler(handler, before, true, prefix + "lifecycle." + hook, warnings).rewrite();
  }
}

}  // namespace postern
