// ClusterFeed: what the API server's watches would tell a ClusterStore, for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "control/cluster_store.hpp"
#include "control/publisher.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {

template <class T>
constexpr WatchedKind kind_of() {
  if constexpr (std::is_same_v<T, Pod>) return WatchedKind::pods;
  if constexpr (std::is_same_v<T, Namespace>) return WatchedKind::namespaces;
  if constexpr (std::is_same_v<T, NetworkPolicy>) return WatchedKind::network_policies;
  if constexpr (std::is_same_v<T, Service>) return WatchedKind::services;
  if constexpr (std::is_same_v<T, EndpointSlice>) return WatchedKind::endpoint_slices;
  if constexpr (std::is_same_v<T, ClusterNode>) return WatchedKind::nodes;
  if constexpr (std::is_same_v<T, MeshConfig>) return WatchedKind::mesh_config;
}

inline ObjectKey key_of(const Pod& pod) { return {pod.workload.ns, pod.workload.name}; }
inline ObjectKey key_of(const Namespace& ns) { return {"", ns.name}; }
inline ObjectKey key_of(const ClusterNode& node) { return {"", node.name}; }
inline ObjectKey key_of(const MeshConfig&) { return {"postern-system", "postern"}; }
inline ObjectKey key_of(const auto& object) { return {object.ns, object.name}; }

class ClusterFeed {
 public:
  explicit ClusterFeed(ClusterStore& store) : store_(store) {}

  std::uint64_t version() const { return version_; }

  template <class T>
  static WatchEvent applied(const T& object) {
    return {.type = WatchEvent::Type::applied, .kind = kind_of<T>(), .key = key_of(object), .version = 0, .object = object};
  }
  template <class T>
  static WatchEvent deleted(const T& object) {
    return {.type = WatchEvent::Type::deleted, .kind = kind_of<T>(), .key = key_of(object), .version = 0, .object = Pod{}};
  }
  static WatchEvent of_list(WatchEvent::Type type, WatchedKind kind) {
    return {.type = type, .kind = kind, .key = {}, .version = 0, .object = Pod{}};
  }

  // Gives the event the next resourceVersion.
  void send(WatchEvent event) {
    event.version = ++version_;
    store_.apply(std::move(event));
  }
  template <class T>
  void apply(const T& object) {
    send(applied(object));
  }
  template <class T>
  void erase(const T& object) {
    send(deleted(object));
  }

  // Lists every kind.
  void list(const ClusterView& view, const MeshSettings& settings) {
    list_kind(view.pods);
    list_kind(view.namespaces);
    list_kind(view.policies);
    list_kind(view.services);
    list_kind(view.endpoint_slices);
    list_kind(view.nodes);
    list_kind(std::map<int, MeshConfig>{{0, {.settings = settings, .epoch = {}}}});
  }
  void list(const ClusterBuilder& cluster) { list(cluster.view, cluster.settings); }

  template <class Key, class T>
  void list_kind(const std::map<Key, T>& objects) {
    send(of_list(WatchEvent::Type::relist_began, kind_of<T>()));
    for (const auto& [key, object] : objects) apply(object);
    send(of_list(WatchEvent::Type::relisted, kind_of<T>()));
  }

 private:
  ClusterStore& store_;
  std::uint64_t version_ = 0;
};

// What a sidecar holds that takes whatever changes as soon as it is told.
class Receiver {
 public:
  Receiver(Publisher& publisher, const WorkloadKey& pod, const std::string& uid)
      : subscription_(publisher.subscribe(pod, uid, [this](bool gone) {
          ++told_;
          gone_ = gone_ || gone;
        })) {
    if (subscription_ != nullptr) take(subscription_->difference({}));
  }
  Receiver(const Receiver&) = delete;
  Receiver& operator=(const Receiver&) = delete;

  bool subscribed() const { return subscription_ != nullptr; }
  bool gone() const { return gone_; }
  // Whether there was anything to take since the last call.
  bool told() { return std::exchange(told_, 0) > 0; }
  Subscription& subscription() { return *subscription_; }
  const std::map<std::string, std::string>& held() const { return held_; }
  const HeldVersions& versions() const { return versions_; }
  const std::map<std::string, ResourcePtr>& resources() const { return resources_; }
  bool has(const std::string& name) const { return held_.contains(name); }
  std::size_t deltas() const { return deltas_; }  // taken
  std::string body(const std::string& name) const { return resources_.at(name)->body; }

  // Takes what changed; how much that was.
  std::size_t take() { return take(subscription_->changes(versions_)); }
  // As after losing the stream and finding another.
  std::size_t take_all() { return take(subscription_->difference(versions_)); }

 private:
  std::size_t take(const Subscription::Difference& difference) {
    for (const ResourceDelta& delta : difference.deltas) take(delta, difference);
    for (const ResourcePtr& resource : difference.resources) {
      held_[resource->name] = resource->hash;
      resources_[resource->name] = resource;
    }
    for (const std::string& name : difference.removed) {
      held_.erase(name);
      resources_.erase(name);
    }
    versions_ = HeldVersions(held_);
    return difference.resources.size() + difference.removed.size();
  }

  // Edits to what is held come to the very resource that would be sent whole.
  void take(const ResourceDelta& delta, const Subscription::Difference& difference) {
    ++deltas_;
    EXPECT_EQ(held_.at(delta.name), delta.base);
    const auto whole =
        std::find_if(difference.resources.begin(), difference.resources.end(), [&](const ResourcePtr& r) { return r->name == delta.name; });
    ASSERT_NE(whole, difference.resources.end());
    const auto body = edited_body(resources_.at(delta.name)->body, delta);
    ASSERT_TRUE(body) << body.error().text();
    EXPECT_EQ(*body, (*whole)->body);
    EXPECT_EQ(delta.hash, (*whole)->hash);
  }

  std::map<std::string, std::string> held_;
  HeldVersions versions_;
  std::size_t deltas_ = 0;
  std::map<std::string, ResourcePtr> resources_;
  int told_ = 0;
  bool gone_ = false;
  std::unique_ptr<Subscription> subscription_;
};

}  // namespace postern::test
