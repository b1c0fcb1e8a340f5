#include "control/cluster_store.hpp"

#include <algorithm>
#include <utility>

namespace postern {
namespace {

// Whether the map has changed.
template <class Key, class T>
bool assign(std::map<Key, T>& objects, const Key& key, T object) {
  const auto [entry, is_new] = objects.try_emplace(key);
  if (!is_new && entry->second == object) return false;
  entry->second = std::move(object);
  return true;
}

template <class Key, class T>
std::vector<ObjectKey> missing_in(const std::set<ObjectKey>& listed, const std::map<Key, T>& objects) {
  std::vector<ObjectKey> missing;
  for (const auto& [key, object] : objects) {
    ObjectKey named;
    if constexpr (std::is_same_v<Key, std::string>) {
      named.name = key;
    } else {
      named = key;
    }
    if (!listed.contains(named)) missing.push_back(std::move(named));
  }
  return missing;
}

}  // namespace

bool Changes::empty() const {
  return pods.empty() && namespaces.empty() && policies.empty() && services.empty() && nodes.empty() && !settings;
}

ClusterStore::ClusterStore(MeshConfig defaults) : defaults_(std::move(defaults)), mesh_(defaults_) {}

void ClusterStore::apply(WatchEvent event) {
  Kind& kind = kinds_[static_cast<std::size_t>(event.kind)];
  switch (event.type) {
    case WatchEvent::Type::applied:
      kind.mark = std::max(kind.mark, event.version);
      if (kind.relisting) kind.relisting->insert(event.key);
      put(event.key, std::move(event.object));
      break;
    case WatchEvent::Type::deleted:
      kind.mark = std::max(kind.mark, event.version);
      if (kind.relisting) kind.relisting->erase(event.key);
      remove(event.kind, event.key);
      break;
    case WatchEvent::Type::relist_began: kind.relisting.emplace(); return;
    case WatchEvent::Type::relisted:
      remove_unlisted(kind, event.kind);
      // What was deleted before the list is not in it, and which versions that had is not known: those up to the list's are covered.
      kind.mark = std::max(kind.mark, event.version);
      kind.relisting.reset();
      kind.listed = true;
      break;
    case WatchEvent::Type::bookmark: break;
  }
  if (!kind.relisting) kind.seen = std::max({kind.seen, event.version, kind.mark});
}

void ClusterStore::remove_unlisted(const Kind& kind, WatchedKind name) {
  if (!kind.relisting) return;
  std::vector<ObjectKey> missing;
  switch (name) {
    case WatchedKind::pods: missing = missing_in(*kind.relisting, view_.pods); break;
    case WatchedKind::namespaces: missing = missing_in(*kind.relisting, view_.namespaces); break;
    case WatchedKind::network_policies: missing = missing_in(*kind.relisting, view_.policies); break;
    case WatchedKind::services: missing = missing_in(*kind.relisting, view_.services); break;
    case WatchedKind::endpoint_slices: missing = missing_in(*kind.relisting, view_.endpoint_slices); break;
    case WatchedKind::nodes: missing = missing_in(*kind.relisting, view_.nodes); break;
    case WatchedKind::mesh_config:
      if (kind.relisting->empty()) missing.emplace_back();
      break;
  }
  for (const ObjectKey& key : missing) remove(name, key);
}

void ClusterStore::put(const ObjectKey& key, WatchedObject object) {
  struct Putter {
    ClusterStore& store;
    const ObjectKey& key;

    void operator()(Pod&& pod) const {
      if (assign(store.view_.pods, key, std::move(pod))) store.changes_.pods.insert(key);
    }
    void operator()(Namespace&& ns) const {
      if (assign(store.view_.namespaces, key.name, std::move(ns))) store.changes_.namespaces.insert(key.name);
    }
    void operator()(NetworkPolicy&& policy) const {
      if (assign(store.view_.policies, key, std::move(policy))) store.changes_.policies.insert(key);
    }
    void operator()(Service&& service) const {
      if (assign(store.view_.services, key, std::move(service))) store.changes_.services.insert(key);
    }
    void operator()(EndpointSlice&& slice) const { store.put_slice(key, std::move(slice)); }
    void operator()(ClusterNode&& node) const {
      if (assign(store.view_.nodes, key.name, std::move(node))) store.changes_.nodes.insert(key.name);
    }
    void operator()(MeshConfig&& mesh) const { store.set_mesh(std::move(mesh)); }
  };
  std::visit(Putter{*this, key}, std::move(object));
}

bool ClusterStore::remove(WatchedKind kind, const ObjectKey& key) {
  switch (kind) {
    case WatchedKind::pods: {
      auto pod = view_.pods.extract(key);
      if (pod.empty()) return false;
      removed_pods_.push_back(std::move(pod));
      changes_.pods.insert(key);
      return true;
    }
    case WatchedKind::namespaces:
      if (view_.namespaces.erase(key.name) == 0) return false;
      changes_.namespaces.insert(key.name);
      return true;
    case WatchedKind::network_policies:
      if (view_.policies.erase(key) == 0) return false;
      changes_.policies.insert(key);
      return true;
    case WatchedKind::services:
      if (view_.services.erase(key) == 0) return false;
      changes_.services.insert(key);
      return true;
    case WatchedKind::endpoint_slices: {
      const auto slice = view_.endpoint_slices.find(key);
      if (slice == view_.endpoint_slices.end()) return false;
      unlink_slice(key, slice->second);
      view_.endpoint_slices.erase(slice);
      return true;
    }
    case WatchedKind::nodes:
      if (view_.nodes.erase(key.name) == 0) return false;
      changes_.nodes.insert(key.name);
      return true;
    case WatchedKind::mesh_config: {
      if (mesh_ == defaults_) return false;
      set_mesh(defaults_);
      return true;
    }
  }
  return false;
}

void ClusterStore::put_slice(const ObjectKey& key, EndpointSlice slice) {
  EndpointSlice& held = view_.endpoint_slices[key];
  if (held == slice) return;
  unlink_slice(key, held);
  held = std::move(slice);
  if (held.service.empty()) return;
  const ObjectKey service{key.ns, held.service};
  slices_[service].insert(key);
  changes_.services.insert(service);
}

void ClusterStore::unlink_slice(const ObjectKey& key, const EndpointSlice& slice) {
  if (slice.service.empty()) return;
  const ObjectKey service{key.ns, slice.service};
  changes_.services.insert(service);
  const auto of_service = slices_.find(service);
  if (of_service == slices_.end()) return;
  of_service->second.erase(key);
  if (of_service->second.empty()) slices_.erase(of_service);
}

void ClusterStore::set_mesh(MeshConfig mesh) {
  if (mesh_ == mesh) return;
  changes_.settings = changes_.settings || mesh_.settings != mesh.settings;
  mesh_ = std::move(mesh);
}

Changes ClusterStore::take_changes() {
  removed_pods_.clear();
  return std::exchange(changes_, {});
}

std::vector<const EndpointSlice*> ClusterStore::slices_of(const ObjectKey& service) const {
  std::vector<const EndpointSlice*> slices;
  const auto found = slices_.find(service);
  if (found == slices_.end()) return slices;
  for (const ObjectKey& key : found->second) slices.push_back(&view_.endpoint_slices.at(key));
  return slices;
}

bool ClusterStore::synced() const {
  return std::all_of(kinds_.begin(), kinds_.end(), [](const Kind& kind) { return kind.listed; });
}

Mark ClusterStore::mark() const {
  Mark mark;
  mark.epoch = mesh_.epoch.empty() ? store_uid_ : store_uid_ + "/" + mesh_.epoch;
  for (const WatchedKind kind : watched_kinds) mark.versions.emplace(name_of(kind), kinds_[static_cast<std::size_t>(kind)].mark);
  return mark;
}

std::vector<std::pair<WatchedKind, std::uint64_t>> ClusterStore::unseen(const Mark& mark) const {
  std::vector<std::pair<WatchedKind, std::uint64_t>> kinds;
  if (mark.epoch != this->mark().epoch) return kinds;
  for (const WatchedKind kind : watched_kinds) {
    const auto version = mark.versions.find(std::string(name_of(kind)));
    if (version == mark.versions.end() || version->second <= kinds_[static_cast<std::size_t>(kind)].seen) continue;
    kinds.emplace_back(kind, version->second);
  }
  return kinds;
}

void ClusterStore::set_store_uid(std::string uid) { store_uid_ = std::move(uid); }

}  // namespace postern
