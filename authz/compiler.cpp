#include "authz/compiler.hpp"

#include <algorithm>
#include <set>
#include <string_view>
#include <utility>

#include "authz/topology.hpp"

namespace postern {
namespace {

// How `podSelector` without `namespaceSelector` says the policy's own namespace: by its immutable name label.
LabelSelector namespace_named(const std::string& ns) {
  return {.match_labels = {{std::string(namespace_name_label), ns}}, .match_expressions = {}};
}

bool is_audit(const ClusterView& view, const MeshSettings& settings, const NetworkPolicy& policy) {
  if (settings.audit) return true;
  if (policy.mode) return *policy.mode == EnforcementMode::audit;
  const auto ns = view.namespaces.find(policy.ns);
  return ns != view.namespaces.end() && ns->second.mode == EnforcementMode::audit;
}

// Calls `use(policy)` for each policy of the namespace, by name.
template <class Use>
void for_each_policy(const ClusterView& view, const std::string& ns, const Use& use) {
  for (auto it = view.policies.lower_bound({ns, ""}); it != view.policies.end() && it->first.ns == ns; ++it) use(it->second);
}

// The policies of a namespace that one of its policies in audit replaces; also what a policy replaces that is replaced itself: a chain of
// audit policies leaves its last one.
std::set<std::string_view> replaced_in(const ClusterView& view, const MeshSettings& settings, const std::string& ns) {
  std::set<std::string_view> replaced;
  for_each_policy(view, ns, [&](const NetworkPolicy& policy) {
    if (!policy.replaces.empty() && is_audit(view, settings, policy)) replaced.insert(policy.replaces.begin(), policy.replaces.end());
  });
  return replaced;
}

// Collects the rules of one workload, policy by policy.
class Lists {
 public:
  void add(const NetworkPolicy& policy, PolicyDirection direction, bool audit, bool replaced) {
    if (!policy.isolates(direction)) return;
    AllowDirection& to = direction == PolicyDirection::ingress ? rules_.list.ingress : rules_.list.egress;
    to.isolating.push_back({.ns = policy.ns, .policy = policy.name, .audit = audit, .replaced = replaced});
    const auto& rules = policy.rules(direction);
    for (std::uint32_t i = 0; i < rules.size(); ++i) {
      AllowRule rule = compile(policy, i, rules[i]);
      if (direction == PolicyDirection::ingress) add_spiffe_ids(policy, i, rule);
      rule.audit = audit;
      rule.replaced = replaced;
      to.rules.push_back(std::move(rule));
    }
  }

  void set_default_deny(EnforcementMode mode) {
    rules_.list.ingress.default_deny = mode;
    rules_.list.egress.default_deny = mode;
  }
  void set_trust_domains(std::vector<std::string> domains) { rules_.list.trust_domains = std::move(domains); }
  PolicyRules take() { return std::move(rules_); }

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
        result.peers.push_back({.origin = origin, .peer = reference(policy.ns, peer)});
      }
    }
    return result;
  }

  static void add_spiffe_ids(const NetworkPolicy& policy, std::uint32_t position, AllowRule& rule) {
    const RuleOrigin origin{.ns = policy.ns, .policy = policy.name, .rule = position, .peer = RuleOrigin::annotation};
    for (const std::string& id : policy.allow_spiffe_ids) rule.peers.push_back({.origin = origin, .peer = SpiffeIdPeer{id}});
  }

  PeerSetRef reference(const std::string& policy_ns, const PolicyPeer& peer) {
    PeerSelectors selectors{canonical(peer.namespace_selector.value_or(namespace_named(policy_ns))),
                            canonical(peer.pod_selector.value_or(LabelSelector{}))};
    const auto [entry, is_new] = references_.try_emplace(std::move(selectors), static_cast<std::uint32_t>(rules_.peer_sets.size()));
    if (is_new) rules_.peer_sets.push_back(entry->first);
    return {entry->second};
  }

  PolicyRules rules_;
  std::map<PeerSelectors, std::uint32_t> references_;
};

std::vector<PodRecord> records_of(const ClusterView& view, MtlsMode mesh) {
  std::vector<PodRecord> pods;
  pods.reserve(view.pods.size());
  for (const auto& [key, pod] : view.pods) {
    if (!pod.ended()) pods.push_back(record_of(pod, view, mesh));  // an ended pod's address may be another's (kubernetes#92697)
  }
  return pods;
}

void sort_unique(std::vector<IpAddress>& addresses) {
  std::sort(addresses.begin(), addresses.end());
  addresses.erase(std::unique(addresses.begin(), addresses.end()), addresses.end());
}

void append(std::vector<IpAddress>& out, const std::vector<IpAddress>& more) { out.insert(out.end(), more.begin(), more.end()); }

}  // namespace

std::string text_of(const PeerSelectors& selectors) { return text_of(selectors.pods) + "|" + text_of(selectors.namespaces); }

std::vector<const NetworkPolicy*> policies_selecting(const ClusterView& view, const Pod& pod) {
  std::vector<const NetworkPolicy*> selecting;
  if (pod.workload.host_network) return selecting;  // NetworkPolicy API: the effect on hostNetwork pods is undefined; ours: none
  for_each_policy(view, pod.workload.ns, [&](const NetworkPolicy& policy) {
    if (matches(policy.pod_selector, pod.labels)) selecting.push_back(&policy);
  });
  return selecting;
}

PolicyRules rules_of(const ClusterView& view, const MeshSettings& settings, const Pod& pod) {
  const Workload& workload = pod.workload;
  if (workload.host_network) return {};
  Lists lists;
  const auto replaced = replaced_in(view, settings, workload.ns);
  for (const NetworkPolicy* policy : policies_selecting(view, pod)) {
    const bool audit = is_audit(view, settings, *policy);
    for (const auto direction : {PolicyDirection::ingress, PolicyDirection::egress}) {
      lists.add(*policy, direction, audit, replaced.contains(policy->name));
    }
  }
  const auto ns = view.namespaces.find(workload.ns);
  if (ns != view.namespaces.end()) {
    std::vector<std::string> others = ns->second.allow_trust_domains;
    std::erase(others, settings.trust_domain.text());  // whose IDs are pods, or nobody
    lists.set_trust_domains(std::move(others));
  }
  if (settings.default_policy == DefaultPolicy::deny && workload.meshed) {
    const bool audit = settings.audit || (ns != view.namespaces.end() && ns->second.mode == EnforcementMode::audit);
    lists.set_default_deny(audit ? EnforcementMode::audit : EnforcementMode::enforce);
  }
  return lists.take();
}

Labels labels_of_namespace(const ClusterView& view, const std::string& ns) {
  const auto found = view.namespaces.find(ns);
  Labels labels = found == view.namespaces.end() ? Labels{} : found->second.labels;
  labels.insert_or_assign(std::string(namespace_name_label), ns);  // the API server sets it, whatever the manifest says
  return labels;
}

PodRecord record_of(const Pod& pod, const ClusterView& view, MtlsMode mesh) {
  PodRecord record{.workload = pod.workload, .node_name = pod.node_name, .terminating = pod.terminating};
  const auto ns = view.namespaces.find(pod.workload.ns);
  const MtlsMode inherited = ns == view.namespaces.end() ? mesh : ns->second.mtls.value_or(mesh);
  record.workload.mtls = pod.mtls.value_or(inherited);
  return record;
}

PeerSetRecord record_of(const PeerSelectors& selectors, const ClusterView& view) {
  PeerSetRecord record{.namespaces = selectors.namespaces,
                       .pods = selectors.pods,
                       .whole_namespaces = selectors.pods.empty(),
                       .namespace_names = {},
                       .members = {}};
  if (record.whole_namespaces && selectors.namespaces.empty()) return record;  // everywhere: no names
  std::set<std::string> names;
  for (const auto& [name, ns] : view.namespaces) names.insert(name);
  for (auto it = view.pods.begin(); it != view.pods.end(); it = view.pods.upper_bound({it->first.ns + '\0', ""}))
    names.insert(it->first.ns);
  for (const std::string& name : names) {
    if (!matches(selectors.namespaces, labels_of_namespace(view, name))) continue;
    if (record.whole_namespaces) {
      record.namespace_names.push_back(name);
      continue;
    }
    for (auto it = view.pods.lower_bound({name, ""}); it != view.pods.end() && it->first.ns == name; ++it) {
      const Pod& pod = it->second;
      if (!pod.ended() && !pod.workload.host_network && matches(selectors.pods, pod.labels)) record.members.push_back(it->first);
    }
  }
  return record;
}

std::vector<IpAddress> own_node_addresses(const ClusterView& view, const Pod& pod) {
  std::vector<IpAddress> out = pod.host_addresses;
  if (const auto node = view.nodes.find(pod.node_name); node != view.nodes.end()) append(out, node->second.addresses);
  sort_unique(out);
  return out;
}

std::vector<IpAddress> node_addresses_of(const ClusterView& view) {
  std::vector<IpAddress> out;
  for (const auto& [name, node] : view.nodes) append(out, node.addresses);
  for (const auto& [key, pod] : view.pods) {
    append(out, pod.host_addresses);
    if (pod.workload.host_network) append(out, pod.workload.addresses);
  }
  sort_unique(out);
  return out;
}

Compiler::Compiler(const ClusterView& view, const MeshSettings& settings)
    : view_(view),
      settings_(settings),
      topology_(std::make_shared<const Topology>(records_of(view, settings.mtls), resolve_services(view), node_addresses_of(view))) {
  labels_.reserve(topology_->workloads().size());
  for (const Workload& workload : topology_->workloads()) labels_.push_back(&view_.pods.at({workload.ns, workload.name}).labels);
}

std::shared_ptr<const PeerSet> Compiler::peer_set(const PeerSelectors& selectors) {
  const auto known = peer_sets_.find(selectors);
  if (known != peer_sets_.end()) return known->second;

  auto set = std::make_shared<PeerSet>();
  set->namespaces = selectors.namespaces;
  set->pods = selectors.pods;
  const auto& workloads = topology_->workloads();
  const std::string* ns = nullptr;  // workloads are sorted by namespace: its labels are looked at once
  bool ns_matches = false;
  for (std::uint32_t i = 0; i < workloads.size(); ++i) {
    const Workload& workload = workloads[i];
    if (ns == nullptr || *ns != workload.ns) {
      ns = &workload.ns;
      ns_matches = matches(set->namespaces, labels_of_namespace(view_, workload.ns));
    }
    if (ns_matches && !workload.host_network && matches(set->pods, *labels_[i])) set->members.push_back(i);
  }
  return peer_sets_.emplace(selectors, std::move(set)).first->second;
}

Result<std::shared_ptr<const PolicySnapshot>> Compiler::compile(const WorkloadKey& self, std::uint64_t generation,
                                                                std::chrono::system_clock::time_point made_at) {
  const auto pod = view_.pods.find(self);
  if (pod == view_.pods.end()) return Error{.message = "there is no pod " + self.text(), .where = ""};
  if (pod->second.ended()) {
    return Error{.message = "the pod " + self.text() + " has ended (phase " + std::string(name_of(pod->second.phase)) + ")", .where = ""};
  }
  MeshSettings settings = settings_;
  append(settings.node_addresses, own_node_addresses(view_, pod->second));
  PolicyRules rules = rules_of(view_, settings_, pod->second);
  for (const PeerSelectors& selectors : rules.peer_sets) rules.list.peer_sets.push_back(peer_set(selectors));
  return std::shared_ptr<const PolicySnapshot>(
      new PolicySnapshot(generation, made_at, std::move(settings), topology_, *topology_->find(self.ns, self.name), std::move(rules.list)));
}

Result<std::shared_ptr<const PolicySnapshot>> compile(const ClusterView& view, const WorkloadKey& self, const MeshSettings& settings,
                                                      std::uint64_t generation, std::chrono::system_clock::time_point made_at) {
  return Compiler(view, settings).compile(self, generation, made_at);
}

}  // namespace postern
