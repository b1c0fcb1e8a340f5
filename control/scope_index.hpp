// ScopeIndex: everything the publisher knows about the cluster, and the scopes in it.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "control/allow_lists.hpp"
#include "control/cluster_store.hpp"
#include "control/peer_sets.hpp"
#include "control/scope.hpp"
#include "control/scope_graph.hpp"
#include "control/services.hpp"

namespace postern {

class ScopeIndex {
 public:
  explicit ScopeIndex(ClusterStore& store_in);
  ScopeIndex(const ScopeIndex&) = delete;
  ScopeIndex& operator=(const ScopeIndex&) = delete;

  // Takes the store's changes and follows every one of them; then notifies the scopes that were marked.
  Changes flush();
  bool is_built() const { return built_; }

  std::uint64_t add(graph::Scope& scope);  // its number
  void remove(std::uint64_t number) { scopes_.erase(number); }
  std::size_t scope_count() const { return scopes_.size(); }

  // The resources that more than one scope may have.
  const ResourcePtr& resource(graph::PodNode& pod) const;
  ResourcePtr settings_for(const Pod& pod);
  // Of pods and Services: as configured, or as the cluster's objects tell.
  const std::vector<Cidr>& ranges() const;

  std::vector<graph::PodNode*> pods_at(const IpAddress& address) const;
  bool is_node(const IpAddress& address) const { return node_addresses_.contains(address); }
  void add_node_looker(graph::Scope& scope) { node_lookers_.push_back(&scope); }
  void remove_node_looker(graph::Scope& scope) { std::erase(node_lookers_, &scope); }

  ClusterStore& store;
  graph::Pods pods;
  PeerSets sets;
  Services services;
  AllowLists lists;

 private:
  struct NamespaceModes {
    std::optional<EnforcementMode> enforcement;
    std::optional<MtlsMode> mtls;
    std::vector<std::string> trust_domains = {};
    bool operator==(const NamespaceModes&) const = default;
  };

  Changes everything() const;
  void follow(const Changes& changes);
  void follow_settings();
  bool follow_ranges(const Changes& changes);
  void follow_pods(const Changes& changes);
  void follow_pod(const ObjectKey& key);
  void follow_lost_pod(graph::PodNode& node);
  void follow_nodes(const std::set<std::string>& names);
  void follow_services(const Changes& changes);
  bool has_namespace(const std::string& name) const;
  void set_addresses(graph::PodNode& node);
  void count_node_addresses(const std::vector<IpAddress>& before, const std::vector<IpAddress>& now);
  void renew_resource(graph::PodNode& node);
  template <class Visit>
  void for_each_pod_in(const std::string& ns, const Visit& visit);

  std::map<std::string, NamespaceModes> modes_;
  std::unordered_map<IpAddress, std::vector<graph::PodNode*>, IpAddressHash> pods_at_;
  std::unordered_map<IpAddress, std::uint32_t, IpAddressHash> node_addresses_;  // how many say so
  std::map<std::string, std::vector<IpAddress>> nodes_;                         // by name, as counted
  bool node_addresses_changed_ = false;
  std::vector<Cidr> derived_ranges_;                        // where none are configured
  std::map<std::vector<IpAddress>, ResourcePtr> settings_;  // by the addresses of the pod's node
  std::vector<graph::Scope*> node_lookers_;
  std::map<std::uint64_t, graph::Scope*> scopes_;  // by when they came
  std::uint64_t last_number_ = 0;
  bool built_ = false;
};

}  // namespace postern
