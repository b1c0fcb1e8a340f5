// Document -> NetworkPolicy, as strictly as the Kubernetes API (pkg/apis/networking/validation), and with unknown fields refused.
#pragma once

#include <vector>

#include "authz/decode_common.hpp"
#include "authz/network_policy.hpp"
#include "base/result.hpp"

namespace postern {

// Of one object of networking.k8s.io/v1. An unknown field is refused (as with kubectl's strict validation), because an API server
// that drops a mistyped `from` leaves a rule that allows everybody.
NetworkPolicy decode_network_policy(const Field& object);
// spec.<direction>[].ports[] of it.
PolicyPort decode_policy_port(const Field& field);

// The first for one document; `warnings`, where given, receives what is accepted but not as it seems.
Result<NetworkPolicy> decode_network_policy(const Document& document, std::vector<Warning>* warnings = nullptr);

}  // namespace postern
