#include "authz/compiler.hpp"

#include <algorithm>
#include <string>

#include "authz/decision_index.hpp"
#include "authz/topology.hpp"

namespace postern {
namespace {

// How `podSelector` without `namespaceSelector` says the policy's own namespace: by its immutable name label.
LabelSelector namespace_named(const std::string& ns) {
  return {.match_labels = {{std::string(namespace_name_label), ns}}, .match_expressions = {}};
}

}  // namespace

Compiler::Compiler(const ClusterView& view, const MeshSettings& settings)
    : view_(view), settings_(settings), replaced_(replaced_policies()), topology_(std::make_shared<const Topology>(view, settings.mtls)) {
  labels_.reserve(topology_->workloads().size());
  for (const Workload& workload : topology_->workloads()) labels_.push_back(&view_.pods.at({workload.ns, workload.name}).labels);
}

Labels Compiler::labels_of_namespace(const std::string& ns) const {
  const auto found = view_.namespaces.find(ns);
  Labels labels = found == view_.namespaces.end() ? Labels{} : found->second.labels;
  labels.insert_or_assign(std::string(namespace_name_label), ns);  // the API server sets it, whatever the manifest says
  return labels;
}

bool Compiler::is_audit(const NetworkPolicy& policy) const {
  if (settings_.audit) return true;
  if (policy.mode) return *policy.mode == EnforcementMode::audit;
  const auto ns = view_.namespaces.find(policy.ns);
  return ns != view_.namespaces.end() && ns->second.mode == EnforcementMode::audit;
}

// Also what a policy replaces that is replaced itself: a chain of audit policies leaves its last one.
std::set<ObjectKey> Compiler::replaced_policies() const {
  std::set<ObjectKey> replaced;
  for (const auto& [key, policy] : view_.policies) {
    if (policy.replaces.empty() || !is_audit(policy)) continue;
    for (const std::string& name : policy.replaces) replaced.insert({policy.ns, name});
  }
  return replaced;
}

std::shared_ptr<const PeerSet> Compiler::peer_set(const std::string& policy_ns, const PolicyPeer& peer) {
  Selectors selectors{canonical(peer.namespace_selector.value_or(namespace_named(policy_ns))),
                      canonical(peer.pod_selector.value_or(LabelSelector{}))};
  const auto known = peer_sets_.find(selectors);
  if (known != peer_sets_.end()) return known->second;

  auto set = std::make_shared<PeerSet>();
  set->namespaces = selectors.first;
  set->pods = selectors.second;
  const auto& workloads = topology_->workloads();
  const std::string* ns = nullptr;  // workloads are sorted by namespace: its labels are looked at once
  bool ns_matches = false;
  for (std::uint32_t i = 0; i < workloads.size(); ++i) {
    const Workload& workload = workloads[i];
    if (ns == nullptr || *ns != workload.ns) {
      ns = &workload.ns;
      ns_matches = matches(set->namespaces, labels_of_namespace(workload.ns));
    }
    if (ns_matches && !workload.host_network && matches(set->pods, *labels_[i])) set->members.push_back(i);
  }
  return peer_sets_.emplace(std::move(selectors), std::move(set)).first->second;
}

// Collects the rules of one workload, policy by policy.
class Compiler::Lists {
 public:
  explicit Lists(Compiler& compiler) : compiler_(compiler) {}

  void add(const NetworkPolicy& policy, PolicyDirection direction) {
    if (!policy.isolates(direction)) return;
    AllowDirection& to = direction == PolicyDirection::ingress ? list_.ingress : list_.egress;
    const bool audit = compiler_.is_audit(policy);
    const bool replaced = compiler_.replaced_.contains({policy.ns, policy.name});
    to.isolating.push_back({.ns = policy.ns, .policy = policy.name, .audit = audit, .replaced = replaced});
    const auto& rules = policy.rules(direction);
    for (std::uint32_t i = 0; i < rules.size(); ++i) {
      AllowRule rule = compile(policy, i, rules[i]);
      rule.audit = audit;
      rule.replaced = replaced;
      to.rules.push_back(std::move(rule));
    }
  }

  AllowList& list() { return list_; }

 private:
  AllowRule compile(const NetworkPolicy& policy, std::uint32_t position, const PolicyRule& rule) {
    AllowRule result{.ports = rule.ports, .peers = {}};
    RuleOrigin origin{.ns = policy.ns, .policy = policy.name, .rule = position, .peer = -1};
    if (rule.peers.empty()) result.peers.push_back({.origin = origin, .peer = AnyPeer{}});
    for (const PolicyPeer& peer : rule.peers) {
      ++origin.peer;
      if (peer.ip_block) {
        result.peers.push_back({.origin = origin, .peer = *peer.ip_block});
      } else {
        result.peers.push_back({.origin = origin, .peer = reference(compiler_.peer_set(policy.ns, peer))});
      }
    }
    return result;
  }

  PeerSetRef reference(const std::shared_ptr<const PeerSet>& set) {
    const auto [entry, is_new] = references_.try_emplace(set.get(), static_cast<std::uint32_t>(list_.peer_sets.size()));
    if (is_new) list_.peer_sets.push_back(set);
    return {entry->second};
  }

  Compiler& compiler_;
  AllowList list_;
  std::map<const PeerSet*, std::uint32_t> references_;
};

AllowList Compiler::allow_list_of(const Pod& self) {
  Lists lists(*this);
  const Workload& workload = self.workload;
  if (workload.host_network) return {};  // NetworkPolicy API: the effect on hostNetwork pods is undefined; ours: none

  const auto first = view_.policies.lower_bound({workload.ns, ""});
  for (auto it = first; it != view_.policies.end() && it->first.ns == workload.ns; ++it) {
    const NetworkPolicy& policy = it->second;
    if (!matches(policy.pod_selector, self.labels)) continue;
    lists.add(policy, PolicyDirection::ingress);
    lists.add(policy, PolicyDirection::egress);
  }
  if (settings_.default_policy == DefaultPolicy::deny && workload.meshed) {
    const auto ns = view_.namespaces.find(workload.ns);
    const bool audit = settings_.audit || (ns != view_.namespaces.end() && ns->second.mode == EnforcementMode::audit);
    const auto mode = audit ? EnforcementMode::audit : EnforcementMode::enforce;
    lists.list().ingress.default_deny = mode;
    lists.list().egress.default_deny = mode;
  }
  return std::move(lists.list());
}

Result<std::shared_ptr<const PolicySnapshot>> Compiler::compile(const WorkloadKey& self, std::uint64_t generation,
                                                                std::chrono::system_clock::time_point made_at) {
  const auto pod = view_.pods.find(self);
  if (pod == view_.pods.end()) return Error{.message = "there is no pod " + self.text(), .where = ""};
  if (pod->second.ended()) {
    return Error{.message = "the pod " + self.text() + " has ended (phase " + std::string(name_of(pod->second.phase)) + ")", .where = ""};
  }

  std::shared_ptr<PolicySnapshot> snapshot(new PolicySnapshot);
  snapshot->generation_ = generation;
  snapshot->made_at_ = made_at;
  snapshot->settings_ = settings_;
  auto& node = snapshot->settings_.node_addresses;
  node.insert(node.end(), pod->second.host_addresses.begin(), pod->second.host_addresses.end());
  if (const auto found = view_.nodes.find(pod->second.node_name); found != view_.nodes.end()) {
    node.insert(node.end(), found->second.addresses.begin(), found->second.addresses.end());
  }
  std::sort(node.begin(), node.end());
  node.erase(std::unique(node.begin(), node.end()), node.end());

  snapshot->topology_ = topology_;
  snapshot->self_ = topology_->find(self.ns, self.name);
  snapshot->allow_list_ = allow_list_of(pod->second);
  const Workload& workload = *snapshot->self_;
  snapshot->ingress_ = std::make_shared<const DecisionIndex>(snapshot->allow_list_, PolicyDirection::ingress, workload, *topology_);
  snapshot->egress_ = std::make_shared<const DecisionIndex>(snapshot->allow_list_, PolicyDirection::egress, workload, *topology_);
  return std::shared_ptr<const PolicySnapshot>(std::move(snapshot));
}

Result<std::shared_ptr<const PolicySnapshot>> compile(const ClusterView& view, const WorkloadKey& self, const MeshSettings& settings,
                                                      std::uint64_t generation, std::chrono::system_clock::time_point made_at) {
  return Compiler(view, settings).compile(self, generation, made_at);
}

}  // namespace postern
