// decide(): see snapshot.hpp.
#include "authz/decision_index.hpp"
#include "authz/snapshot.hpp"
#include "authz/topology.hpp"

namespace postern {
namespace {

// What the node's own traffic may do beside the rules (architecture section 2c; NetworkPolicy API: traffic of the pod's node).
// A pod that is known as itself is not the node, whatever address its traffic was masqueraded to.
Basis node_basis(const PolicySnapshot& snapshot, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol) {
  const bool is_pod = peer.workload != nullptr && !peer.workload->host_network;
  if (is_pod || !snapshot.is_own_node(peer.address)) return Basis::no_rule;
  switch (snapshot.settings().node_traffic) {
    case NodeTraffic::none: return Basis::no_rule;
    case NodeTraffic::all: return Basis::node;
    case NodeTraffic::probes: break;
  }
  if (direction == PolicyDirection::egress || protocol != Protocol::tcp) return Basis::no_rule;
  return snapshot.self().is_probed_by_node(port) ? Basis::node_probe : Basis::no_rule;
}

Decision decision_of(const DecisionIndex& index, Plane plane, RuleRank winner, Basis otherwise) {
  if (!index.isolated(plane)) return {.allowed = true, .basis = Basis::not_isolated};
  if (winner != no_rank) return {.allowed = true, .basis = Basis::rule, .origin = &index.origin(winner)};
  return {.allowed = otherwise != Basis::no_rule, .basis = otherwise};
}

Decision decision_of_outsider(const DecisionIndex& index, Plane plane, RuleRank winner, bool domain_allowed) {
  if (winner == no_rank && !domain_allowed) return {.allowed = false, .basis = Basis::outsider};
  return decision_of(index, plane, winner, Basis::no_rule);
}

// Other trust domains are off by default: not even a pod that is open, or a rule for any source, is open to their IDs.
Verdict decide_outsider(const PolicySnapshot& snapshot, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol) {
  const AllowList& list = snapshot.allow_list();
  const bool ingress = direction == PolicyDirection::ingress;
  const bool domain_allowed = ingress && list.allows_trust_domain(peer.outsider->trust_domain());
  const DecisionIndex& index = snapshot.index(direction);
  const Winners winners = index.find_outsider(peer.outsider->text(), domain_allowed, peer.address, port, protocol);
  return {.enforced = decision_of_outsider(index, Plane::enforced, winners.enforced, domain_allowed),
          .pending = decision_of_outsider(index, Plane::pending, winners.pending, domain_allowed)};
}

}  // namespace

Verdict decide(const PolicySnapshot* snapshot, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol) {
  if (snapshot == nullptr) return {};
  if (peer.outsider != nullptr) return decide_outsider(*snapshot, direction, peer, port, protocol);
  const DecisionIndex& index = snapshot->index(direction);
  if (!index.isolated(Plane::enforced) && !index.isolated(Plane::pending)) {
    const Decision open{.allowed = true, .basis = Basis::not_isolated};
    return {.enforced = open, .pending = open};
  }
  const Topology& topology = snapshot->topology();
  const Workload* workload = peer.workload;
  if (workload == nullptr && index.has_named_ports()) workload = topology.at(peer.address);
  const auto known = workload == nullptr ? std::nullopt : topology.index_of(*workload);
  const bool in_peer_sets = peer.workload != nullptr && peer.matches_peer_sets;
  const Winners winners = index.find(known, in_peer_sets, peer.address, port, protocol);
  const Basis otherwise = node_basis(*snapshot, direction, peer, port, protocol);
  return {.enforced = decision_of(index, Plane::enforced, winners.enforced, otherwise),
          .pending = decision_of(index, Plane::pending, winners.pending, otherwise)};
}

}  // namespace postern
