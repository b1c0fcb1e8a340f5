#include "control/scope_index.hpp"

#include <algorithm>
#include <utility>

#include "authz/compiler.hpp"
#include "control/cluster_ranges.hpp"
#include "control/resource_hash.hpp"

namespace postern {

using graph::PodNode;
using graph::Scope;

ScopeIndex::ScopeIndex(ClusterStore& store_in) : store(store_in), sets(pods), services(store, pods), lists(store, sets) {}

std::uint64_t ScopeIndex::add(Scope& scope) {
  scopes_.emplace(++last_number_, &scope);
  return last_number_;
}

Changes ScopeIndex::flush() {
  if (!store.synced()) return {};
  Changes changes = store.take_changes();
  follow(built_ ? changes : everything());
  built_ = true;
  std::vector<std::uint64_t> numbers;
  for (const auto& [number, scope] : scopes_) numbers.push_back(number);
  for (const std::uint64_t number : numbers) {
    // A callback may have ended any of them.
    if (const auto found = scopes_.find(number); found != scopes_.end()) found->second->notify();
  }
  return changes;
}

Changes ScopeIndex::everything() const {
  const ClusterView& view = store.view();
  Changes all;
  for (const auto& [key, object] : view.pods) all.pods.insert(all.pods.end(), key);
  for (const auto& [key, object] : view.namespaces) all.namespaces.insert(all.namespaces.end(), key);
  for (const auto& [key, object] : view.policies) all.policies.insert(all.policies.end(), key);
  for (const auto& [key, object] : view.services) all.services.insert(all.services.end(), key);
  for (const auto& [key, object] : view.nodes) all.nodes.insert(all.nodes.end(), key);
  return all;
}

// The order matters: each step reads only what the steps before it have brought up to date.
void ScopeIndex::follow(const Changes& changes) {
  if (changes.settings) follow_settings();
  const bool other_ranges = follow_ranges(changes);
  follow_pods(changes);
  follow_nodes(changes.nodes);
  follow_services(changes);
  for (const ObjectKey& policy : changes.policies) lists.policy_changed(policy);
  lists.renew();
  if (changes.settings || other_ranges) {
    for (const auto& [number, scope] : scopes_) scope->renew_own();
  }
}

void ScopeIndex::follow_settings() {
  settings_.clear();
  for (auto& [key, node] : pods) node.resource = nullptr;  // the mTLS mode may be the mesh's
  lists.everything_changed();
  for (const auto& [number, scope] : scopes_) scope->mark_all();
}

// Whether they are others now. The scopes learn of it last: their pods are not up to date yet.
bool ScopeIndex::follow_ranges(const Changes& changes) {
  if (!store.mesh().settings.cluster_cidrs.empty()) {
    derived_ranges_.clear();
    return false;
  }
  if (built_ && !changes.settings && changes.nodes.empty() && changes.services.empty()) return false;
  std::vector<Cidr> now = cluster_ranges(store.view());
  if (now == derived_ranges_) return false;
  derived_ranges_ = std::move(now);
  settings_.clear();
  return true;
}

const std::vector<Cidr>& ScopeIndex::ranges() const {
  const std::vector<Cidr>& configured = store.mesh().settings.cluster_cidrs;
  return configured.empty() ? derived_ranges_ : configured;
}

bool ScopeIndex::has_namespace(const std::string& name) const {
  if (store.view().namespaces.contains(name)) return true;
  const auto pod = store.view().pods.lower_bound({name, ""});
  return pod != store.view().pods.end() && pod->first.ns == name;
}

template <class Visit>
void ScopeIndex::for_each_pod_in(const std::string& ns, const Visit& visit) {
  for (auto it = pods.lower_bound({ns, ""}); it != pods.end() && it->first.ns == ns; ++it) {
    if (it->second.pod != nullptr) visit(it->second);
  }
}

void ScopeIndex::follow_pods(const Changes& changes) {
  std::set<std::string> named = changes.namespaces;
  for (const ObjectKey& key : changes.pods) named.insert(key.ns);
  std::vector<std::string> relabelled;
  std::vector<std::string> other_mtls;
  for (const std::string& name : named) {
    if (has_namespace(name) && sets.set_namespace(name, labels_of_namespace(store.view(), name))) relabelled.push_back(name);
    const auto object = store.view().namespaces.find(name);
    NamespaceModes now;
    if (object != store.view().namespaces.end()) {
      now = {.enforcement = object->second.mode, .mtls = object->second.mtls, .trust_domains = object->second.allow_trust_domains};
    }
    const NamespaceModes before = std::exchange(modes_[name], now);
    if (before.enforcement != now.enforcement || before.trust_domains != now.trust_domains) lists.namespace_changed(name);
    if (before.mtls != now.mtls) other_mtls.push_back(name);
  }
  for (const ObjectKey& key : changes.pods) follow_pod(key);
  for (const std::string& name : relabelled) {
    for_each_pod_in(name, [this](PodNode& node) { sets.renew(node); });
  }
  for (const std::string& name : other_mtls) {
    for_each_pod_in(name, [this](PodNode& node) { renew_resource(node); });
  }
  for (const std::string& name : named) {
    if (has_namespace(name)) continue;
    sets.remove_namespace(name);
    modes_.erase(name);
  }
}

void ScopeIndex::follow_pod(const ObjectKey& key) {
  const auto found = store.view().pods.find(key);
  const Pod* pod = found == store.view().pods.end() || found->second.ended() ? nullptr : &found->second;
  if (pod == nullptr) {
    if (const auto node = pods.find(key); node != pods.end()) follow_lost_pod(node->second);
    return;
  }
  PodNode& node = node_of(pods, key);
  const bool is_new = node.pod == nullptr;
  node.pod = pod;
  const std::vector<Scope*> scopes = node.scopes;
  for (Scope* scope : scopes) {
    if (scope->uid() != pod->workload.uid) scope->end();
  }
  set_addresses(node);
  sets.renew(node);
  if (is_new) {
    mark_pod(node, node_lookers_);
  } else {
    renew_resource(node);
  }
  for (Scope* scope : node.scopes) {
    scope->renew_own();
    lists.pod_changed(*scope);
  }
}

void ScopeIndex::follow_lost_pod(PodNode& node) {
  const std::vector<Scope*> scopes = node.scopes;
  for (Scope* scope : scopes) scope->end();
  mark_pod(node, node_lookers_);
  node.pod = nullptr;
  node.resource = nullptr;
  set_addresses(node);
  sets.renew(node);
  graph::release(pods, node);
}

void ScopeIndex::renew_resource(PodNode& node) {
  if (node.resource != nullptr) {
    const ResourcePtr before = std::exchange(node.resource, nullptr);
    if (resource(node)->hash == before->hash) return;
  }
  mark_pod(node, node_lookers_);
}

// hostNetwork pods have their node's addresses, and an ended pod's may already be another's (kubernetes#92697).
void ScopeIndex::set_addresses(PodNode& node) {
  std::vector<IpAddress> addresses;
  std::vector<IpAddress> hosts;
  if (node.pod != nullptr) {
    const Workload& workload = node.pod->workload;
    hosts = node.pod->host_addresses;
    if (workload.host_network) {
      hosts.insert(hosts.end(), workload.addresses.begin(), workload.addresses.end());
    } else {
      addresses = workload.addresses;
    }
  }
  if (hosts != node.hosts) {
    count_node_addresses(node.hosts, hosts);
    node.hosts = std::move(hosts);
  }
  if (addresses == node.addresses) return;
  for (const IpAddress& address : node.addresses) {
    const auto entry = pods_at_.find(address);
    if (entry == pods_at_.end()) continue;
    std::erase(entry->second, &node);
    if (entry->second.empty()) pods_at_.erase(entry);
  }
  for (const IpAddress& address : addresses) pods_at_[address].push_back(&node);
  node.addresses = std::move(addresses);
}

void ScopeIndex::count_node_addresses(const std::vector<IpAddress>& before, const std::vector<IpAddress>& now) {
  for (const IpAddress& address : now) {
    if (++node_addresses_[address] == 1) node_addresses_changed_ = true;
  }
  for (const IpAddress& address : before) {
    const auto entry = node_addresses_.find(address);
    if (--entry->second > 0) continue;
    node_addresses_.erase(entry);
    node_addresses_changed_ = true;
  }
}

void ScopeIndex::follow_nodes(const std::set<std::string>& names) {
  for (const std::string& name : names) {
    const auto node = store.view().nodes.find(name);
    const bool exists = node != store.view().nodes.end();
    const std::vector<IpAddress> now = exists ? node->second.addresses : std::vector<IpAddress>{};
    count_node_addresses(nodes_[name], now);
    if (exists) {
      nodes_[name] = now;
    } else {
      nodes_.erase(name);
    }
  }
  if (!names.empty()) {
    settings_.clear();
    for (const auto& [number, scope] : scopes_) {
      if (scope->is_live() && names.contains(scope->self().pod->node_name)) scope->renew_own();
    }
  }
  if (std::exchange(node_addresses_changed_, false)) {
    for (Scope* scope : node_lookers_) scope->mark(ResourceKind::nodes, {});
  }
}

void ScopeIndex::follow_services(const Changes& changes) {
  std::set<ObjectKey> names = changes.services;
  std::set<std::string> touched;
  for (const ObjectKey& pod : changes.pods) touched.insert(pod.ns);
  for (const std::string& ns : touched) {
    for (ObjectKey& service : services.by_selector(ns)) names.insert(std::move(service));
  }
  for (const ObjectKey& name : names) services.renew(name, node_lookers_);
}

const ResourcePtr& ScopeIndex::resource(PodNode& pod) const {
  if (pod.resource == nullptr) {
    const PodRecord record = record_of(*pod.pod, store.view(), store.mesh().settings.mtls);
    pod.resource = make_resource(pod_resource_name(pod.key), encode(record));
  }
  return pod.resource;
}

ResourcePtr ScopeIndex::settings_for(const Pod& pod) {
  std::vector<IpAddress> addresses = own_node_addresses(store.view(), pod);
  ResourcePtr& known = settings_[addresses];
  if (known == nullptr) {
    MeshSettings settings = store.mesh().settings;
    settings.cluster_cidrs = ranges();
    settings.node_addresses = std::move(addresses);
    known = make_resource("settings", encode(settings));
  }
  return known;
}

std::vector<PodNode*> ScopeIndex::pods_at(const IpAddress& address) const {
  const auto found = pods_at_.find(address);
  return found == pods_at_.end() ? std::vector<PodNode*>{} : found->second;
}

}  // namespace postern
