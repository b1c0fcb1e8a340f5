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
};
std::string_view name_of(Basis basis);

// Where a rule came from, in the words of the NetworkPolicy API: spec.<direction>[rule].{from,to}[peer].
struct RuleOrigin {
  std::string ns;
  std::string policy;
  std::uint32_t rule = 0;
  std::int32_t peer = -1;  // -1: the rule names no peers (any)

  bool operator==(const RuleOrigin&) const = default;
};
// default/backend-allow ingress[0].from[1]
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
