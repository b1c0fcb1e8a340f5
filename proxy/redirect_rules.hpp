// The iptables rules that bring a pod's TCP connections to its sidecar, as values: what they should be, what iptables-save says
// they are, how the two differ, and the one transaction that turns one into the other. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.hpp"

namespace postern {

// What is brought to the sidecar, and what is left alone. Lists are sorted and free of duplicates.
struct RedirectRules {
  std::uint32_t uid = 1337;          // the sidecar's own: its connections leave the pod
  std::optional<std::uint32_t> gid;  // likewise
  Port inbound{15006};
  Port outbound{15001};
  std::optional<Port> health = Port{15020};  // reached past the redirection
  std::vector<Port> exclude_inbound_ports;
  std::vector<Port> exclude_outbound_ports;
  std::vector<Cidr> exclude_cidrs;  // of destinations, both families
  std::vector<std::uint32_t> exclude_uids;
};

// Our part of one family's nat table.
struct NatState {
  struct Chain {
    std::string name;
    std::vector<std::string> rules;  // in iptables-save's spelling, without "-A <name> "
    bool operator==(const Chain&) const = default;
  };
  std::vector<Chain> chains;         // of our own, those that exist
  std::vector<std::string> jumps;    // rules of other chains that lead to ours, without "-A ": "OUTPUT -p tcp -j POSTERN_OUTBOUND"
  std::vector<std::string> earlier;  // rules of PREROUTING and OUTPUT that come before the first jump: traffic may leave there

  bool empty() const { return chains.empty() && jumps.empty(); }
  bool operator==(const NatState&) const = default;
};

// The rules of one family: POSTERN_INBOUND from PREROUTING, POSTERN_OUTBOUND from OUTPUT. Loopback is left alone in both: a pod's
// traffic to itself is not the sidecar's business (NetworkPolicy API: "A Pod cannot block access to itself").
NatState render_rules(const RedirectRules& rules, IpFamily family);

// Our part of what `iptables-save -t nat` printed.
NatState read_saved_rules(std::string_view saved);

// Does the nat table hold any rule at all, ours or not?
bool holds_rules(std::string_view saved);

// Input for iptables-restore --noflush: one transaction after which our part is `to`, given that it is `from`.
std::string transaction(const NatState& from, const NatState& to);

// What is missing, what is not expected, what is out of order; a sentence each. Nothing: they are the same.
std::vector<std::string> differences(const NatState& expected, const NatState& found);

}  // namespace postern
