#include "authz/network_policy.hpp"

namespace postern {

std::string_view name_of(EnforcementMode mode) {
  switch (mode) {
    case EnforcementMode::enforce: return "enforce";
    case EnforcementMode::audit: return "audit";
  }
  return "";
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
