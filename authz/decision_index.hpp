// DecisionIndex: one direction of an AllowList, prepared for look-ups whose cost does not grow with policies or members.
//
// Rules that name the same kind of peer are merged beforehand, so that a decision is three look-ups: rules for any peer, rules
// for the peer's class (workloads that are in the same peer sets) and rules for the address's class (in the same ipBlocks).
// Each ends in one PortMap, that says which rule wins at a port.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "authz/allow_list.hpp"
#include "authz/block_table.hpp"
#include "authz/port_map.hpp"
#include "authz/topology.hpp"
#include "base/ip.hpp"

namespace postern {

// What a look-up found, for both planes.
struct Winners {
  RuleRank enforced = no_rank;
  RuleRank pending = no_rank;
};

class DecisionIndex {
 public:
  // Named ports resolve on the destination pod: `self` for ingress, the peer for egress.
  // REQUIRES: `list` outlives the index and does not move.
  DecisionIndex(const AllowList& list, PolicyDirection direction, const Workload& self, const Topology& topology);

  bool isolated(Plane plane) const { return isolated_[static_cast<std::size_t>(plane)]; }
  // True where it matters, for rules of any kind, which pod is at an address: egress with named ports.
  bool has_named_ports() const { return !profile_of_.empty(); }
  // `workload` is the pod at the other end, as an index into the topology; `in_peer_sets`: it is one that selectors may match.
  Winners find(std::optional<std::uint32_t> workload, bool in_peer_sets, const IpAddress& address, Port port, Protocol protocol) const;
  // The same for an authenticated SPIFFE ID that is no pod's: rules that list it, and, where its trust domain is allowed, those for any
  // source and for its address. Never what selects pods.
  Winners find_outsider(const std::string& id, bool domain_allowed, const IpAddress& address, Port port, Protocol protocol) const;
  // REQUIRES: a rank that find() returned.
  const RuleOrigin& origin(RuleRank rank) const { return *origins_[rank]; }

 private:
  friend class DecisionIndexBuilder;

  using ProtocolMaps = std::array<PortMap, 3>;
  struct PlaneMaps {  // into maps_; equal unless a rule that counts in one plane only is among those merged
    std::uint32_t enforced = 0;
    std::uint32_t pending = 0;
  };

  void improve(Winners& winners, const PlaneMaps& maps, Port port, Protocol protocol) const;

  std::array<bool, 2> isolated_{};
  std::vector<const RuleOrigin*> origins_;  // by rank
  std::vector<ProtocolMaps> maps_;          // the first is empty

  // A profile is what the named ports of the rules are at a pod; 0: none of them exists there. Empty: no rule names a port.
  std::vector<std::uint32_t> profile_of_;  // by workload
  std::vector<PlaneMaps> any_;             // by profile
  std::vector<std::uint32_t> class_of_;    // by workload; 0: in no peer set
  std::vector<PlaneMaps> classes_;
  std::unordered_map<std::string, PlaneMaps> spiffe_ids_;
  BlockTable blocks_;
  std::vector<PlaneMaps> block_classes_;  // by address class * number of profiles + profile
};

}  // namespace postern
