// NetworkPolicy, as networking.k8s.io/v1 has it, after the API server's defaulting.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "authz/labels.hpp"
#include "authz/verdict.hpp"
#include "base/ip.hpp"

namespace postern {

// Whether a policy decides connections, or only says what it would decide (architecture section 4).
enum class EnforcementMode : std::uint8_t { enforce, audit };
std::string_view name_of(EnforcementMode mode);  // enforce, audit

// spec.<direction>[].ports[]. Neither `port` nor `name`: every port of that protocol.
struct PolicyPort {
  Protocol protocol = Protocol::tcp;
  std::optional<Port> port;
  std::string name;              // a named port, resolved on the destination pod; excludes `port` and `end_port`
  std::optional<Port> end_port;  // inclusive; needs `port`, and is not below it

  bool operator==(const PolicyPort&) const = default;
};
std::string text_of(const PolicyPort& port);  // TCP 80-90, TCP http, UDP every port

// spec.<direction>[].{from,to}[].ipBlock. Every `except` lies strictly inside `cidr`.
struct IpBlock {
  Cidr cidr;
  std::vector<Cidr> except;

  auto operator<=>(const IpBlock&) const = default;
};
std::string text_of(const IpBlock& block);  // 10.0.0.0/8 except 10.1.0.0/16, 10.2.0.0/16

// spec.<direction>[].{from,to}[]. Either an ipBlock, or one selector, or both selectors (then both must match).
struct PolicyPeer {
  std::optional<LabelSelector> pod_selector;
  std::optional<LabelSelector> namespace_selector;  // absent: the policy's own namespace
  std::optional<IpBlock> ip_block;

  bool operator==(const PolicyPeer&) const = default;
};

// spec.ingress[] or spec.egress[]. No ports: every port of every protocol. No peers: everybody, also outside the cluster.
struct PolicyRule {
  std::vector<PolicyPort> ports;
  std::vector<PolicyPeer> peers;

  bool operator==(const PolicyRule&) const = default;
};

struct NetworkPolicy {
  std::string ns;
  std::string name;
  std::int64_t generation = 0;                // metadata.generation; 0 when the manifest has none
  std::optional<EnforcementMode> mode;        // absent: the namespace's
  std::vector<std::string> replaces;          // policies of its namespace that the pending verdict leaves out while this one is in audit
  std::vector<std::string> allow_spiffe_ids;  // peers of each ingress rule beside the rule's own; sorted, each once
  LabelSelector pod_selector;
  bool isolates_ingress = true;  // spec.policyTypes contains Ingress
  bool isolates_egress = false;  // spec.policyTypes contains Egress
  std::vector<PolicyRule> ingress;
  std::vector<PolicyRule> egress;

  // What an absent or empty spec.policyTypes means: Ingress always, Egress where there is an egress rule.
  void default_policy_types();
  bool isolates(PolicyDirection direction) const;
  const std::vector<PolicyRule>& rules(PolicyDirection direction) const;
  bool operator==(const NetworkPolicy&) const = default;
};

}  // namespace postern
