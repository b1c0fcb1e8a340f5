#include "control/scope.hpp"

#include <algorithm>

#include "control/resource_hash.hpp"
#include "control/scope_index.hpp"

namespace postern {
namespace {

constexpr std::size_t most_marks = 1'000;       // beyond that, everything is compared
constexpr std::size_t most_looked_up = 20'000;  // per scope

std::string name_of(ResourceKind kind, const ObjectKey& key) {
  switch (kind) {
    case ResourceKind::settings: return "settings";
    case ResourceKind::allow_list: return "allow-list";
    case ResourceKind::probes: return "probes";
    case ResourceKind::nodes: return "nodes";
    case ResourceKind::peer_set: return peer_set_resource_name(key.name);
    case ResourceKind::pod: return pod_resource_name(key);
    case ResourceKind::service: return service_resource_name(key);
  }
  return {};
}

}  // namespace

std::optional<std::pair<ResourceKind, ObjectKey>> parse_resource_name(std::string_view name) {
  const std::string_view kind = name.substr(0, name.find('/'));
  if (kind.size() == name.size()) {
    for (const auto one : {ResourceKind::settings, ResourceKind::allow_list, ResourceKind::probes, ResourceKind::nodes}) {
      if (name == name_of(one, {})) return std::pair{one, ObjectKey{}};
    }
    return std::nullopt;
  }
  const std::string_view rest = name.substr(kind.size() + 1);
  if (kind == "peer-set") return std::pair{ResourceKind::peer_set, ObjectKey{.ns = {}, .name = std::string(rest)}};
  const auto slash = rest.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  ObjectKey key{.ns = std::string(rest.substr(0, slash)), .name = std::string(rest.substr(slash + 1))};
  if (kind == "pod") return std::pair{ResourceKind::pod, std::move(key)};
  if (kind == "service") return std::pair{ResourceKind::service, std::move(key)};
  return std::nullopt;
}

}  // namespace postern

namespace postern::graph {

Scope::Scope(ScopeIndex& index, PodNode& self, std::function<void(bool)> on_change)
    : index_(index), number_(index.add(*this)), self_(&self), uid_(self.pod->workload.uid), on_change_(std::move(on_change)) {
  self.scopes.push_back(this);
  index_.lists.attach(*this);
  renew_own();
  to_notify_ = false;
}

Scope::~Scope() {
  leave_graph();
  index_.remove(number_);
}

void Scope::leave_graph() {
  if (self_ == nullptr) return;
  index_.lists.detach(*this);
  while (!looked_up_pods_.empty()) forget_pod(WorkloadKey(*looked_up_pods_.begin()));
  while (!looked_up_services_.empty()) forget_service(ObjectKey(*looked_up_services_.begin()));
  forget_nodes();
  PodNode& self = *std::exchange(self_, nullptr);
  std::erase(self.scopes, this);
  release(index_.pods, self);
}

void Scope::end() {
  leave_graph();
  to_notify_ = true;
}

void Scope::notify() {
  if (!std::exchange(to_notify_, false)) return;
  const auto on_change = on_change_;  // this may be destroyed by the call
  on_change(!is_live());
}

void Scope::mark(ResourceKind kind, const ObjectKey& key) {
  if (!is_live()) return;
  to_notify_ = true;
  if (all_marked_) return;
  marked_.emplace(kind, key);
  if (marked_.size() > most_marks) mark_all();
}

void Scope::mark_all() {
  if (!is_live()) return;
  to_notify_ = true;
  all_marked_ = true;
  marked_.clear();
}

void Scope::renew_own() {
  if (!is_live()) return;
  const Pod& pod = *self_->pod;
  ResourcePtr settings = index_.settings_for(pod);
  if (settings_ == nullptr || settings->hash != settings_->hash) {
    settings_ = std::move(settings);
    mark(ResourceKind::settings, {});
  }
  ResourcePtr probes = make_resource("probes", encode_probes(pod.workload.probe_ports));
  if (probes_ == nullptr || probes->hash != probes_->hash) {
    probes_ = std::move(probes);
    mark(ResourceKind::probes, {});
  }
}

bool Scope::has(const ServiceNode& service) const {
  if (!service.record) return false;
  if (looked_up_services_.contains(service.key) || (service.has_node_port && !looked_up_nodes_.empty())) return true;
  for (std::size_t i = 0; i < list_->sets.size(); ++i) {
    if (list_->egress[i] && service.sets.contains(list_->sets[i])) return true;
  }
  return false;
}

bool Scope::has(const PodNode& pod) const {
  if (pod.pod == nullptr) return false;
  if (&pod == self_ || looked_up_pods_.contains(pod.key)) return true;
  const auto is_member = [&](PeerSetNode* set) { return std::binary_search(pod.sets.begin(), pod.sets.end(), set, std::less<>()); };
  return std::any_of(list_->sets.begin(), list_->sets.end(), is_member) ||
         std::any_of(pod.services.begin(), pod.services.end(), [this](const ServiceNode* service) { return has(*service); });
}

ResourcePtr Scope::nodes_resource() const {
  std::vector<IpAddress> nodes;
  for (const IpAddress& address : looked_up_nodes_) {
    if (index_.is_node(address)) nodes.push_back(address);
  }
  return nodes.empty() ? nullptr : make_resource("nodes", encode_nodes(nodes));
}

Scope::Current Scope::current(ResourceKind kind, const ObjectKey& key) {
  switch (kind) {
    case ResourceKind::settings: return {settings_};
    case ResourceKind::allow_list: return {index_.lists.resource(*list_), &list_->resource};
    case ResourceKind::probes: return {probes_};
    case ResourceKind::nodes: return {nodes_resource()};
    case ResourceKind::peer_set:
      for (PeerSetNode* set : list_->sets) {
        if (set->id == key.name) return {index_.sets.resource(*set), &set->resource};
      }
      return {};
    case ResourceKind::pod: {
      const auto pod = index_.pods.find(key);
      if (pod == index_.pods.end() || !has(pod->second)) return {};
      return {index_.resource(pod->second)};
    }
    case ResourceKind::service: {
      ServiceNode* service = index_.services.find(key);
      if (service == nullptr || !has(*service)) return {};
      return {index_.services.resource(*service), &service->resource};
    }
  }
  return {};
}

// By name, each once.
std::vector<Scope::Current> Scope::everything() {
  std::set<ServiceNode*> services;
  std::set<PodNode*> pods{self_};
  std::vector<Current> all{{settings_}, {probes_}, {index_.lists.resource(*list_), &list_->resource}};
  if (ResourcePtr nodes = nodes_resource()) all.push_back({std::move(nodes)});
  for (std::size_t i = 0; i < list_->sets.size(); ++i) {
    PeerSetNode& set = *list_->sets[i];
    all.push_back({index_.sets.resource(set), &set.resource});
    pods.insert(set.members.begin(), set.members.end());
    if (!list_->egress[i]) continue;
    for (const auto& [service, members] : set.services) services.insert(service);
  }
  for (const ObjectKey& key : looked_up_services_) services.insert(index_.services.find(key));
  if (!looked_up_nodes_.empty()) {
    for (ServiceNode* service : index_.services.with_node_port()) services.insert(service);
  }
  for (const WorkloadKey& key : looked_up_pods_) pods.insert(&index_.pods.at(key));
  for (ServiceNode* service : services) {
    if (!service->record) continue;
    all.push_back({index_.services.resource(*service), &service->resource});
    pods.insert(service->pods.begin(), service->pods.end());
  }
  for (PodNode* pod : pods) {
    if (pod->pod != nullptr) all.push_back({index_.resource(*pod)});
  }
  std::sort(all.begin(), all.end(), [](const Current& a, const Current& b) { return a.resource->name < b.resource->name; });
  return all;
}

void Scope::add(Difference& difference, Current current, const HeldVersions& held) {
  if (current.kept != nullptr) {
    if (auto delta = current.kept->since(held.hash_of(current.resource->name))) difference.deltas.push_back(*std::move(delta));
  }
  difference.resources.push_back(std::move(current.resource));
}

Subscription::Difference Scope::difference(const HeldVersions& held) {
  Difference difference;
  if (!is_live()) return difference;
  if (!std::exchange(adopted_, true)) adopt(held);
  std::size_t at = 0;
  for (Current& current : everything()) {
    const std::string& name = current.resource->name;
    for (; at < held.size() && held.name_at(at) < name; ++at) difference.removed.emplace_back(held.name_at(at));
    const bool is_held = at < held.size() && held.name_at(at) == name;
    if (!is_held || !held.has_hash_at(at, current.resource->hash)) add(difference, std::move(current), held);
    if (is_held) ++at;
  }
  for (; at < held.size(); ++at) difference.removed.emplace_back(held.name_at(at));
  forget_gone();
  marked_.clear();
  all_marked_ = false;
  return difference;
}

Subscription::Difference Scope::changes(const HeldVersions& held) {
  if (all_marked_) return difference(held);
  Difference difference;
  if (!is_live()) return difference;
  for (const auto& [kind, key] : std::exchange(marked_, {})) {
    std::string name = name_of(kind, key);
    if (Current now = current(kind, key); now.resource != nullptr) {
      if (!held.has(name, now.resource->hash)) add(difference, std::move(now), held);
    } else if (held.contains(name)) {
      difference.removed.push_back(std::move(name));
    }
  }
  if (!difference.removed.empty()) forget_gone();
  return difference;
}

void Scope::adopt(const HeldVersions& held) {
  for (std::size_t i = 0; i < held.size(); ++i) {
    const auto parsed = parse_resource_name(held.name_at(i));
    if (!parsed || parsed->first != ResourceKind::service) continue;
    ServiceNode* service = index_.services.find(parsed->second);
    if (service != nullptr && service->record && !has(*service) && held.has_hash_at(i, index_.services.resource(*service)->hash))
      add_looked_up(*service);
  }
  for (std::size_t i = 0; i < held.size(); ++i) {
    const auto parsed = parse_resource_name(held.name_at(i));
    if (!parsed || parsed->first != ResourceKind::pod) continue;
    const auto pod = index_.pods.find(parsed->second);
    if (pod == index_.pods.end() || pod->second.pod == nullptr || has(pod->second)) continue;
    if (held.has_hash_at(i, index_.resource(pod->second)->hash)) add_looked_up(pod->second);
  }
}

void Scope::add_looked_up(PodNode& pod) {
  if (looked_up_pods_.size() >= most_looked_up || !looked_up_pods_.insert(pod.key).second) return;
  pod.lookers.push_back(this);
  mark(ResourceKind::pod, pod.key);
}

void Scope::add_looked_up(ServiceNode& service) {
  if (looked_up_services_.size() >= most_looked_up || !looked_up_services_.insert(service.key).second) return;
  service.lookers.push_back(this);
  mark(ResourceKind::service, service.key);
  for (const PodNode* pod : service.pods) mark(ResourceKind::pod, pod->key);
}

bool Scope::look_up(const IpAddress& address) {
  if (!is_live()) return false;
  const bool to_notify = to_notify_;  // whoever asks also takes the answer
  bool known = false;
  for (PodNode* pod : index_.pods_at(address)) {
    if (!has(*pod)) add_looked_up(*pod);
    known = known || has(*pod);
  }
  for (ServiceNode* service : index_.services.at(address)) {
    if (!has(*service)) add_looked_up(*service);
    known = known || has(*service);
  }
  if (index_.is_node(address) && looked_up_nodes_.size() < most_looked_up) {
    known = true;
    if (looked_up_nodes_.empty()) {
      index_.add_node_looker(*this);
      mark_all();
    }
    if (looked_up_nodes_.insert(address).second) mark(ResourceKind::nodes, {});
  }
  to_notify_ = to_notify;
  return known;
}

void Scope::forget(const std::string& name) {
  const auto parsed = parse_resource_name(name);
  if (!is_live() || !parsed) return;
  const bool to_notify = to_notify_;
  switch (parsed->first) {
    case ResourceKind::pod: forget_pod(parsed->second); break;
    case ResourceKind::service: forget_service(parsed->second); break;
    case ResourceKind::nodes: forget_nodes(); break;
    case ResourceKind::settings:
    case ResourceKind::allow_list:
    case ResourceKind::probes:
    case ResourceKind::peer_set: break;  // these were never looked up
  }
  to_notify_ = to_notify;
}

void Scope::forget_pod(const WorkloadKey& key) {
  if (looked_up_pods_.erase(key) == 0) return;
  PodNode& pod = index_.pods.at(key);
  std::erase(pod.lookers, this);
  mark(ResourceKind::pod, key);
  release(index_.pods, pod);
}

void Scope::forget_service(const ObjectKey& key) {
  if (looked_up_services_.erase(key) == 0) return;
  ServiceNode& service = *index_.services.find(key);
  std::erase(service.lookers, this);
  mark(ResourceKind::service, key);
  for (const PodNode* pod : service.pods) mark(ResourceKind::pod, pod->key);
  index_.services.release(service);
}

void Scope::forget_nodes() {
  if (looked_up_nodes_.empty()) return;
  looked_up_nodes_.clear();
  index_.remove_node_looker(*this);
  mark_all();
}

// What no longer exists has been said to be removed, and need not be forgotten by its receiver.
void Scope::forget_gone() {
  const bool to_notify = to_notify_;
  const auto pods = looked_up_pods_;
  for (const WorkloadKey& key : pods) {
    if (index_.pods.at(key).pod == nullptr) forget_pod(key);
  }
  const auto services = looked_up_services_;
  for (const ObjectKey& key : services) {
    if (!index_.services.find(key)->record) forget_service(key);
  }
  to_notify_ = to_notify;
}

}  // namespace postern::graph
