// Scope: one workload's share of the cluster, and which of it has changed since its owner last asked.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/publisher.hpp"
#include "control/scope_graph.hpp"

namespace postern {

enum class ResourceKind : std::uint8_t { settings, allow_list, probes, nodes, peer_set, pod, service };
// The kind and the object that a resource's name names; a peer set's id is the key's name. Nothing for any other name.
std::optional<std::pair<ResourceKind, ObjectKey>> parse_resource_name(std::string_view name);

}  // namespace postern

namespace postern::graph {

class Scope final : public Subscription {
 public:
  // REQUIRES: `index` outlives this, and self.pod is not null.
  Scope(ScopeIndex& index, PodNode& self, std::function<void(bool gone)> on_change);
  ~Scope() override;
  Scope(const Scope&) = delete;
  Scope& operator=(const Scope&) = delete;

  Difference difference(const HeldVersions& held) override;
  Difference changes(const HeldVersions& held) override;
  bool look_up(const IpAddress& address) override;
  void forget(const std::string& name) override;

  bool is_live() const { return self_ != nullptr; }
  // REQUIRES: is_live()
  PodNode& self() const { return *self_; }
  const std::string& uid() const { return uid_; }
  AllowListNode* list() const { return list_; }
  void set_list(AllowListNode* list) { list_ = list; }

  // Something that belongs, belonged or may belong here has changed.
  void mark(ResourceKind kind, const ObjectKey& key);
  void mark_all();
  // Marks the settings and probes where they are others now. REQUIRES: the pod is there.
  void renew_own();
  // Leaves the graph: the pod is no longer there.
  void end();
  // Calls on_change if anything was marked since the last call. The scope may be destroyed by it.
  void notify();

 private:
  using Key = std::pair<ResourceKind, ObjectKey>;

  // A resource as it is now, if it is in scope, and how it came to be so.
  struct Current {
    ResourcePtr resource;
    const KeptResource* kept = nullptr;
  };

  bool has(const PodNode& pod) const;
  bool has(const ServiceNode& service) const;
  Current current(ResourceKind kind, const ObjectKey& key);
  ResourcePtr nodes_resource() const;
  std::vector<Current> everything();
  static void add(Difference& difference, Current current, const HeldVersions& held);
  void adopt(const HeldVersions& held);
  void add_looked_up(PodNode& pod);
  void add_looked_up(ServiceNode& service);
  void forget_gone();
  void forget_pod(const WorkloadKey& key);
  void forget_service(const ObjectKey& key);
  void forget_nodes();
  void leave_graph();

  ScopeIndex& index_;
  std::uint64_t number_;
  PodNode* self_;  // null once ended
  std::string uid_;
  std::function<void(bool)> on_change_;
  AllowListNode* list_ = nullptr;
  ResourcePtr settings_;
  ResourcePtr probes_;

  std::set<Key> marked_;
  bool all_marked_ = true;  // nobody has asked yet
  bool to_notify_ = false;
  bool adopted_ = false;

  std::set<WorkloadKey> looked_up_pods_;
  std::set<ObjectKey> looked_up_services_;
  std::set<IpAddress> looked_up_nodes_;
};

}  // namespace postern::graph
