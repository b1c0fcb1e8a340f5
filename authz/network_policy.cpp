#include "authz/network_policy.hpp"

namespace postern {

std::string_view name_of(EnforcementMode mode) {
  switch (mode) {
    case EnforcementMode::enforce: return "enforce";
    case EnforcementMode::audit: return "audit";
  }
  return "";
}

std::string text_of(const PolicyPort& port) {
  const std::string protocol(name_of(port.protocol));
  if (!port.name.empty()) return protocol + " " + port.name;
  if (!port.port) return protocol + " every port";
  const std::string first = protocol + " " + std::to_string(port.port->number);
  return port.end_port.value_or(*port.port) == *port.port ? first : first + "-" + std::to_string(port.end_port->number);
}

std::string text_of(const IpBlock& block) {
  std::string text = block.cidr.text();
  std::string_view separator = " except ";
  for (const Cidr& except : block.except) {
    text.append(separator).append(except.text());
    separator = ", ";
  }
  return text;
}

void NetworkPolicy::default_policy_types() {
  isolates_ingress = true;
  isolates_egress = !egress.empty();
}

bool NetworkPolicy::isolates(PolicyDirection direction) const {
  return direction == PolicyDirection::ingress ? isolates_ingress : isolates_egress;
}

const std::vector<PolicyRule>& NetworkPolicy::rules(PolicyDirection direction) const {
  return direction == PolicyDirection::ingress ? ingress : egress;
}

}  // namespace postern
