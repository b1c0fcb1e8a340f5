// The outcome of one decision, and what decided it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace postern {

enum class PolicyDirection : std::uint8_t { ingress, egress };
std::string_view name_of(PolicyDirection direction);

// What a decision rests on.
enum class Basis : std::uint8_t {
  rule,          // a rule of a NetworkPolicy matched
  not_isolated,  // no policy selects the pod for this direction
  node_probe,    // traffic of the pod's own node to a probe's port (nodeTraffic: probes)
  node,          // traffic of the pod's own node (nodeTraffic: all)
  no_rule,       // isolated, and no rule matched
  no_policy,     // no policy has arrived yet: nothing known means refused
  outsider,      // an authenticated SPIFFE ID that is no pod's: neither it nor its trust domain is allowed here
};
std::string_view name_of(Basis basis);

// The annotation of a NetworkPolicy that adds SPIFFE IDs to the peers of each of its ingress rules.
inline constexpr std::string_view allow_spiffe_ids_annotation = "postern.dev/allow-spiffe-ids";

// Where a rule came from, in the words of the NetworkPolicy API: spec.<direction>[rule].{from,to}[peer].
struct RuleOrigin {
  std::string ns;
  std::string policy;
  std::uint32_t rule = 0;
  static constexpr std::int32_t no_peers = -1;    // the rule names none (any)
  static constexpr std::int32_t annotation = -2;  // the policy's annotation named it, beside the rule's own peers
  std::int32_t peer = no_peers;

  bool operator==(const RuleOrigin&) const = default;
};
// default/backend-allow ingress[0].from[1], or ingress[0] by postern.dev/allow-spiffe-ids
std::string text_of(const RuleOrigin& origin, PolicyDirection direction);

struct Decision {
  bool allowed = false;
  Basis basis = Basis::no_policy;
  const RuleOrigin* origin = nullptr;  // set when basis == rule; lives as long as the snapshot
};

// `enforced` is computed without audit policies (neither their isolation nor their allows), `pending` with them,
// and without the policies that they replace.
struct Verdict {
  Decision enforced;
  Decision pending;
  bool allowed() const { return enforced.allowed; }
  bool differs() const { return enforced.allowed != pending.allowed; }
};

}  // namespace postern
