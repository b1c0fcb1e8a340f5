// Random clusters small enough that their policies meet, and a plain reading of the API to compare the engine with.
#pragma once

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {

class RandomCluster {
 public:
  explicit RandomCluster(std::uint32_t seed) : random_(seed) {
    const auto ns_count = 1 + below(3);
    for (std::uint32_t i = 0; i < ns_count; ++i) {
      Namespace& ns = c.ns("ns-" + std::to_string(i), labels());
      if (below(6) == 0) ns.mode = below(2) == 0 ? EnforcementMode::audit : EnforcementMode::enforce;
    }
    for (std::uint32_t i = 0; i < 8; ++i) add_pod(i);
    const auto policies = below(7);
    for (std::uint32_t i = 0; i < policies; ++i) add_policy(i);
    if (policies > 1 && seed % 2 == 0) add_replaces();
    if (below(5) == 0) c.settings.default_policy = DefaultPolicy::deny;
    if (below(12) == 0) c.settings.audit = true;
    c.settings.node_traffic = std::array{NodeTraffic::probes, NodeTraffic::all, NodeTraffic::none}[below(3)];
  }

  std::uint32_t below(std::uint32_t bound) { return static_cast<std::uint32_t>(random_() % bound); }

  Port port() { return Port{std::array<std::uint16_t, 6>{80, 81, 82, 443, 8080, 65535}[below(6)]}; }
  Protocol protocol() { return std::array{Protocol::tcp, Protocol::tcp, Protocol::udp, Protocol::sctp}[below(4)]; }

  // Somebody who could be at the other end: a pod by identity or by address alone, the node, or outside.
  Peer peer(const PolicySnapshot& snapshot) {
    const auto kind = below(10);
    if (kind == 0) return {.workload = nullptr, .address = ip("192.168.0.1")};
    if (kind == 1) return {.workload = nullptr, .address = ip(below(2) == 0 ? "203.0.113.9" : "2001:db8::9")};
    auto pod = c.view.pods.begin();
    std::advance(pod, below(static_cast<std::uint32_t>(c.view.pods.size())));
    const Workload& record = pod->second.workload;
    Peer peer = c.peer_of(snapshot, record.ns + "/" + record.name);
    peer.address = record.addresses[below(static_cast<std::uint32_t>(record.addresses.size()))];
    peer.matches_peer_sets = below(4) != 0;
    if (kind == 2) peer.workload = nullptr;
    return peer;
  }

  ClusterBuilder c;

 private:
  Labels labels() {
    Labels result;
    for (const char* name : {"app", "tier"}) {
      if (below(3) != 0) result[name] = std::string(1, static_cast<char>('a' + below(3)));
    }
    return result;
  }

  LabelSelector selector() {
    LabelSelector result;
    if (below(3) == 0) return result;
    if (below(2) == 0) result.match_labels = labels();
    if (below(3) == 0) {
      const auto op = static_cast<SelectorOperator>(below(4));
      SelectorRequirement requirement{.key = below(2) == 0 ? "app" : "tier", .op = op, .values = {}};
      if (op == SelectorOperator::in || op == SelectorOperator::not_in) requirement.values = {"a", "b"};
      result.match_expressions.push_back(requirement);
    }
    return result;
  }

  void add_pod(std::uint32_t i) {
    const std::string number = std::to_string(i);
    const std::string ns = "ns-" + std::to_string(below(static_cast<std::uint32_t>(c.view.namespaces.size())));
    Pod& pod = c.pod(ns + "/pod-" + number, "10.0." + std::to_string(below(2)) + "." + std::to_string(i + 1), labels());
    if (below(2) == 0) pod.workload.addresses.push_back(ip("fd00::" + number));
    pod.workload.meshed = below(4) != 0;
    pod.host_addresses = {ip("192.168.0." + std::to_string(1 + below(2)))};
    if (below(10) == 0) {
      pod.workload.host_network = true;
      pod.workload.addresses = pod.host_addresses;
    }
    if (below(10) == 0) pod.phase = PodPhase::succeeded;
    if (below(2) == 0) pod.workload.named_ports.push_back({"http", Protocol::tcp, port()});
    if (below(3) == 0) pod.workload.named_ports.push_back({"dns", Protocol::udp, port()});
    if (below(2) == 0) pod.workload.probe_ports.push_back({port(), "/"});
  }

  std::vector<PolicyRule> rules() {
    std::vector<PolicyRule> result(below(4));
    for (PolicyRule& rule : result) {
      rule.ports.resize(below(3));
      for (PolicyPort& policy_port : rule.ports) {
        policy_port.protocol = protocol();
        const auto kind = below(4);
        if (kind == 0) continue;
        if (kind == 1) {
          policy_port.name = below(2) == 0 ? "http" : "dns";
          continue;
        }
        policy_port.port = port();
        if (kind == 2) policy_port.end_port = std::max(*policy_port.port, port());
      }
      rule.peers.resize(below(3));
      for (PolicyPeer& peer : rule.peers) {
        switch (below(4)) {
          case 0: peer = pods(selector()); break;
          case 1: peer = namespaces(selector()); break;
          case 2: peer = both(selector(), selector()); break;
          default: peer = random_block(); break;
        }
      }
    }
    return result;
  }

  PolicyPeer random_block() {
    switch (below(5)) {
      case 0: return block("10.0.0.0/16", {"10.0.1.0/24"});
      case 1: return block("10.0.0.0/24", {"10.0.0.2/32", "10.0.0.4/31"});
      case 2: return block("0.0.0.0/0", {"10.0.0.0/8", "192.168.0.0/16"});
      case 3: return block("fd00::/64", {"fd00::2/127"});
      default: return block("10.0.1.0/24");
    }
  }

  void add_policy(std::uint32_t i) {
    const std::string ns = "ns-" + std::to_string(below(static_cast<std::uint32_t>(c.view.namespaces.size())));
    NetworkPolicy& policy = c.policy(ns + "/policy-" + std::to_string(i), selector());
    policy.isolates_ingress = below(3) != 0;
    policy.isolates_egress = below(2) == 0;
    policy.ingress = rules();
    policy.egress = rules();
    if (below(4) == 0) policy.mode = below(2) == 0 ? EnforcementMode::audit : EnforcementMode::enforce;
  }

  // Audit policies that replace others, also ones that are in audit and replace some themselves.
  void add_replaces() {
    for (auto& [id, policy] : c.view.policies) {
      if (below(3) != 0) continue;
      for (const auto& [other, unused] : c.view.policies) {
        if (other.ns == id.ns && other.name != id.name && below(2) == 0) policy.replaces.push_back(other.name);
      }
      if (below(4) != 0) policy.mode = EnforcementMode::audit;
    }
  }

  std::mt19937 random_;
};

// The API's words one after the other over the objects themselves: no allow list, no peer sets, no index.
class PlainReading {
 public:
  explicit PlainReading(const ClusterBuilder& c) : c_(c) {}

  // Whether the policies of the plane leave the pod open, or a rule allows the connection (node traffic aside).
  bool allows(const Pod& self, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol, Plane plane) const {
    if (self.workload.host_network) return true;
    bool isolated = c_.settings.default_policy == DefaultPolicy::deny && self.workload.meshed &&
                    (plane == Plane::pending || !(c_.settings.audit || mode_of(self.workload.ns) == EnforcementMode::audit));
    for (const auto& [id, policy] : c_.view.policies) {
      if (policy.ns != self.workload.ns || !matches(policy.pod_selector, self.labels) || !policy.isolates(direction)) continue;
      if (plane == Plane::enforced ? in_audit(policy) : replaced(policy)) continue;
      isolated = true;
      for (const PolicyRule& rule : policy.rules(direction)) {
        if (has_peer(policy, rule, peer) && has_port(rule, direction == PolicyDirection::ingress ? &self : pod_of(peer), port, protocol)) {
          return true;
        }
      }
    }
    return !isolated;
  }

 private:
  bool in_audit(const NetworkPolicy& policy) const {
    return c_.settings.audit || policy.mode.value_or(mode_of(policy.ns)) == EnforcementMode::audit;
  }
  bool replaced(const NetworkPolicy& policy) const {
    return std::any_of(c_.view.policies.begin(), c_.view.policies.end(), [&](const auto& entry) {
      const NetworkPolicy& other = entry.second;
      const bool names_it = std::find(other.replaces.begin(), other.replaces.end(), policy.name) != other.replaces.end();
      return other.ns == policy.ns && names_it && in_audit(other);
    });
  }
  EnforcementMode mode_of(const std::string& ns) const { return c_.view.namespaces.at(ns).mode.value_or(EnforcementMode::enforce); }

  // By identity, or for what goes by address, by address.
  const Pod* pod_of(const Peer& peer) const {
    for (const auto& [id, pod] : c_.view.pods) {
      if (pod.ended() || pod.workload.host_network) continue;
      if (peer.workload != nullptr ? id == ObjectKey{peer.workload->ns, peer.workload->name} : pod.workload.has_address(peer.address)) {
        return &pod;
      }
    }
    return nullptr;
  }

  bool has_peer(const NetworkPolicy& policy, const PolicyRule& rule, const Peer& peer) const {
    const Pod* pod = peer.workload != nullptr && peer.matches_peer_sets ? pod_of(peer) : nullptr;
    const auto matches_one = [&](const PolicyPeer& item) {
      if (item.ip_block) {
        const auto contains = [&](const Cidr& range) { return range.contains(peer.address); };
        return contains(item.ip_block->cidr) && std::none_of(item.ip_block->except.begin(), item.ip_block->except.end(), contains);
      }
      if (pod == nullptr) return false;
      const bool in_namespace = item.namespace_selector ? matches(*item.namespace_selector, c_.view.namespaces.at(pod->workload.ns).labels)
                                                        : pod->workload.ns == policy.ns;
      return in_namespace && (!item.pod_selector || matches(*item.pod_selector, pod->labels));
    };
    return rule.peers.empty() || std::any_of(rule.peers.begin(), rule.peers.end(), matches_one);
  }

  static bool has_port(const PolicyRule& rule, const Pod* destination, Port port, Protocol protocol) {
    const auto matches_one = [&](const PolicyPort& item) {
      if (item.protocol != protocol) return false;
      if (!item.name.empty()) return destination != nullptr && destination->workload.named_port(item.name, protocol) == port;
      if (!item.port) return true;
      return *item.port <= port && port <= item.end_port.value_or(*item.port);
    };
    return rule.ports.empty() || std::any_of(rule.ports.begin(), rule.ports.end(), matches_one);
  }

  const ClusterBuilder& c_;
};

}  // namespace postern::test
