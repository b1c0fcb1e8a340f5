// The annotations that Postern reads on Kubernetes objects. A value that is none of the expected ones is refused.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "authz/decode_common.hpp"
#include "authz/network_policy.hpp"
#include "authz/workload.hpp"

namespace postern {

struct MtlsAnnotation {
  std::optional<MtlsMode> mode;
  std::vector<std::pair<Port, MtlsMode>> ports;
};

class Annotations {
 public:
  explicit Annotations(const Field& object);

  // postern.dev/enforcement: audit | enforce
  std::optional<EnforcementMode> enforcement() const;
  // postern.dev/replaces: names of NetworkPolicies with commas, none of them `self`. Sorted, each once.
  std::vector<std::string> replaces(std::string_view self) const;
  // postern.dev/injected: "true" | "false"
  bool injected() const;
  // postern.dev/mtls: a mode, <port>=<mode>, or several of them with commas; at most one mode without a port.
  MtlsAnnotation mtls() const;
  // postern.dev/exclude-inbound-ports, postern.dev/exclude-outbound-ports: port numbers with commas.
  std::vector<Port> excluded_inbound_ports() const { return ports("postern.dev/exclude-inbound-ports"); }
  std::vector<Port> excluded_outbound_ports() const { return ports("postern.dev/exclude-outbound-ports"); }
  // Warns of every postern.dev/ annotation that this kind of object does not know: it does nothing.
  void warn_unknown(std::initializer_list<std::string_view> known) const;

 private:
  const std::string* find(std::string_view name) const;
  void refuse(std::string_view name, std::string_view value, std::string_view expected) const;
  std::vector<Port> ports(std::string_view name) const;

  Field field_;
  Labels values_;
};

}  // namespace postern
