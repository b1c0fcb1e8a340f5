#include "authz/explain.hpp"

#include "authz/topology.hpp"

namespace postern {
namespace {

// Walks the allow list of one direction for one connection.
class Walk {
 public:
  Walk(const PolicySnapshot& snapshot, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol)
      : snapshot_(snapshot), direction_(direction), peer_(peer), port_(port), protocol_(protocol) {
    const Topology& topology = snapshot.topology();
    domain_allowed_ = peer.outsider != nullptr && direction == PolicyDirection::ingress &&
                      snapshot.allow_list().allows_trust_domain(peer.outsider->trust_domain());
    if (peer.workload != nullptr && !peer.workload->host_network) member_ = topology.index_of(*peer.workload);
    if (direction == PolicyDirection::ingress) {
      destination_ = &snapshot.self();
    } else if (peer.workload == nullptr) {
      destination_ = topology.at(peer.address);
    } else if (member_) {
      destination_ = &topology.workloads()[*member_];
    }
  }

  ExplainedRule look_at(const AllowRule& rule, const AllowedPeer& allowed) const {
    ExplainedRule result{.origin = &allowed.origin,
                         .audit = rule.audit,
                         .replaced = rule.replaced,
                         .peer = text_of(snapshot_.allow_list(), allowed),
                         .ports = {}};
    if (const auto* listed = std::get_if<SpiffeIdPeer>(&allowed.peer)) {
      result.peer_matches = peer_.outsider != nullptr && peer_.outsider->text() == listed->id;
    } else if (peer_.outsider != nullptr && !domain_allowed_) {
      result.peer_matches = false;
    } else if (const auto* set = std::get_if<PeerSetRef>(&allowed.peer)) {
      const PeerSet& members = *snapshot_.allow_list().peer_sets[set->index];
      result.peer_matches = peer_.matches_peer_sets && member_ && members.contains(*member_);
    } else if (const auto* block = std::get_if<IpBlock>(&allowed.peer)) {
      result.peer_matches = block->cidr.contains(peer_.address);
      for (const Cidr& except : block->except) {
        if (except.contains(peer_.address)) result.peer_matches = false;
      }
    } else {
      result.peer_matches = true;
    }
    look_at_ports(rule, result);
    return result;
  }

  // What it rests on where no rule matches.
  Basis otherwise() const {
    if (peer_.outsider != nullptr) return domain_allowed_ ? Basis::no_rule : Basis::outsider;
    const bool is_pod = peer_.workload != nullptr && !peer_.workload->host_network;
    const NodeTraffic mode = snapshot_.settings().node_traffic;
    if (is_pod || !snapshot_.is_own_node(peer_.address) || mode == NodeTraffic::none) return Basis::no_rule;
    if (mode == NodeTraffic::all) return Basis::node;
    const bool probed = direction_ == PolicyDirection::ingress && protocol_ == Protocol::tcp && snapshot_.self().is_probed_by_node(port_);
    return probed ? Basis::node_probe : Basis::no_rule;
  }

 private:
  void look_at_ports(const AllowRule& rule, ExplainedRule& result) const {
    if (rule.ports.empty()) {
      result.ports = "every port";
      result.port_matches = true;
    }
    for (const PolicyPort& port : rule.ports) {
      if (!result.ports.empty()) result.ports += ", ";
      result.ports += text_of(port);
      bool matches = false;
      if (!port.name.empty()) {
        const auto number = destination_ == nullptr ? std::nullopt : destination_->named_port(port.name, port.protocol);
        result.ports += number ? " (" + std::to_string(number->number) + ")" : " (not a port of the destination)";
        matches = number == port_;
      } else if (port.port) {
        matches = *port.port <= port_ && port_ <= port.end_port.value_or(*port.port);
      } else {
        matches = true;
      }
      if (matches && port.protocol == protocol_) result.port_matches = true;
    }
  }

  const PolicySnapshot& snapshot_;
  PolicyDirection direction_;
  const Peer& peer_;
  Port port_;
  Protocol protocol_;
  bool domain_allowed_ = false;            // of the outsider's trust domain
  std::optional<std::uint32_t> member_;    // the peer, if selectors can match it
  const Workload* destination_ = nullptr;  // where named ports resolve; null: they do not
};

Decision decision_of(const Explanation& explanation, bool isolated, Plane plane, Basis otherwise) {
  if (!isolated && otherwise != Basis::outsider) return {.allowed = true, .basis = Basis::not_isolated};
  for (const ExplainedRule& rule : explanation.rules) {
    if (rule.matches() && counts_in(plane, rule)) {
      return {.allowed = true, .basis = Basis::rule, .origin = rule.origin};
    }
  }
  return {.allowed = otherwise != Basis::no_rule && otherwise != Basis::outsider, .basis = otherwise};
}

// Why the policy does not count in both planes; "" where it does.
std::string mark_of(const auto& item) {
  if (item.audit) return item.replaced ? " (audit, replaced)" : " (audit)";
  return item.replaced ? " (replaced in audit)" : "";
}

std::string text_of(const Decision& decision, PolicyDirection direction) {
  const std::string word = decision.allowed ? "allow" : "deny";
  switch (decision.basis) {
    case Basis::rule: return word + ": " + text_of(*decision.origin, direction);
    case Basis::not_isolated: return word + ": no policy isolates the pod in this direction";
    case Basis::node_probe: return word + ": the pod's own node, to a port that a probe of the pod names";
    case Basis::node: return word + ": the pod's own node (nodeTraffic: all)";
    case Basis::no_rule: return word + ": the pod is isolated, and no rule matches";
    case Basis::no_policy: return word + ": no policy has arrived yet";
    case Basis::outsider:
      return word + ": a SPIFFE ID that is no pod's, and neither the namespace's postern.dev/allow-trust-domain nor a policy's " +
             std::string(allow_spiffe_ids_annotation) + " allows it";
  }
  return word;
}

}  // namespace

Explanation explain(const PolicySnapshot& snapshot, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol) {
  const AllowDirection& list = snapshot.allow_list().direction(direction);
  const Walk walk(snapshot, direction, peer, port, protocol);
  Explanation result{.direction = direction, .verdict = {}, .isolating = list.isolating, .default_deny = list.default_deny, .rules = {}};
  for (const AllowRule& rule : list.rules) {
    for (const AllowedPeer& allowed : rule.peers) result.rules.push_back(walk.look_at(rule, allowed));
  }
  const Basis otherwise = walk.otherwise();
  result.verdict.enforced = decision_of(result, list.isolated(Plane::enforced), Plane::enforced, otherwise);
  result.verdict.pending = decision_of(result, list.isolated(Plane::pending), Plane::pending, otherwise);
  return result;
}

std::string text_of(const Explanation& explanation) {
  std::string text = std::string(name_of(explanation.direction)) + ": " + text_of(explanation.verdict.enforced, explanation.direction);
  if (explanation.verdict.differs()) {
    text += "\n  with the policies that are in audit: " + text_of(explanation.verdict.pending, explanation.direction);
  }
  for (const IsolatingPolicy& policy : explanation.isolating) {
    text += "\n  isolated by " + policy.ns + "/" + policy.policy + mark_of(policy);
  }
  if (explanation.default_deny) {
    text += std::string("\n  isolated by the mesh's defaultPolicy: deny") +
            (*explanation.default_deny == EnforcementMode::audit ? " (audit)" : "");
  }
  for (const ExplainedRule& rule : explanation.rules) {
    text += "\n  " + text_of(*rule.origin, explanation.direction) + mark_of(rule) + ": " + rule.peer +
            (rule.peer_matches ? ": yes; " : ": no; ") + rule.ports + (rule.port_matches ? ": yes" : ": no") +
            (rule.matches() ? "  <- matches" : "");
  }
  return text;
}

}  // namespace postern
