// The graph that leads from an object to the scopes it belongs to:
//
//     pod -- member of --> peer set <-- names -- allow list <-- has -- scope (one per subscription)
//       \-- endpoint of --> Service -- of members of an egress peer set --> that peer set
//
// Every change of an edge marks, in the scopes at its end, the resources that may have come, gone or changed. A mark too many costs a
// comparison of hashes; a mark too few would be a stale sidecar, so each function here marks before it takes an edge away and after it adds
// one.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "authz/compiler.hpp"
#include "authz/resource.hpp"
#include "authz/service_record.hpp"
#include "control/kept_resource.hpp"

namespace postern::graph {

class Scope;
struct AllowListNode;
struct NamespaceSelectorNode;
struct PeerSetNode;
struct ServiceNode;

// A pod, or what refers to one that is not there.
struct PodNode {
  WorkloadKey key;
  const Pod* pod = nullptr;            // into the view; null: there is none, or it has ended
  std::vector<IpAddress> addresses;    // those that the address index has of it
  std::vector<IpAddress> hosts;        // its node's, and its own where it is hostNetwork
  std::vector<PeerSetNode*> sets;      // by pointer
  std::vector<ServiceNode*> services;  // whose endpoint it is
  std::vector<Scope*> scopes;          // its own
  std::vector<Scope*> lookers;         // that looked it up
  ResourcePtr resource;                // null: not asked for yet

  bool is_unused() const { return pod == nullptr && services.empty() && lookers.empty() && scopes.empty(); }
};

// By (namespace, name). A node lives while it is_unused() is false.
using Pods = std::map<WorkloadKey, PodNode>;
PodNode& node_of(Pods& pods, const WorkloadKey& key);  // made where there is none
void release(Pods& pods, PodNode& pod);                // erased where it is unused

struct ServiceNode {
  ObjectKey key;
  std::optional<ServiceRecord> record;  // nothing: no such Service, or nobody can dial it
  bool has_node_port = false;
  std::vector<PodNode*> pods;                            // its endpoints', by pointer
  std::unordered_map<PeerSetNode*, std::uint32_t> sets;  // used for egress: how many members are endpoints
  std::vector<Scope*> lookers;
  KeptResource resource;
};

// One namespaceSelector; many peer sets share it.
struct NamespaceSelectorNode {
  LabelSelector selector;
  std::vector<std::string> matched;  // sorted
  std::vector<PeerSetNode*> sets;
};

struct PeerSetNode {
  struct User {
    AllowListNode* list;
    bool egress;
  };

  PeerSelectors selectors;
  std::string id;
  bool whole_namespaces = false;  // no members are kept
  NamespaceSelectorNode* namespaces = nullptr;
  std::vector<PodNode*> members;  // by key
  std::vector<User> users;
  std::uint32_t egress_users = 0;
  std::unordered_map<ServiceNode*, std::uint32_t> services;  // the other end of ServiceNode::sets
  KeptResource resource;
};

// What selects a list: pods of one namespace with an equal key have equal rules.
struct AllowListKey {
  std::string ns;
  std::vector<std::string> policies;
  bool default_deny = false;

  auto operator<=>(const AllowListKey&) const = default;
};

// Rules shared by every subscribed pod that the same policies select.
struct AllowListNode {
  AllowListKey key;
  PolicyRules rules;
  std::vector<PeerSetNode*> sets;  // beside rules.peer_sets
  std::vector<bool> egress;        // beside them: an egress rule names the set
  std::vector<Scope*> scopes;
  KeptResource resource;
};

// A pod becomes or ceases to be a member. REQUIRES: it was none, or one.
void join(PeerSetNode& set, PodNode& pod);
void leave(PeerSetNode& set, PodNode& pod);
// A Service gains or loses an endpoint pod. REQUIRES: it had it not, or had it.
void add_endpoint(ServiceNode& service, PodNode& pod);
void remove_endpoint(ServiceNode& service, PodNode& pod);
// A list begins or ceases to name a set.
void use(PeerSetNode& set, AllowListNode& list, bool egress);
void unuse(PeerSetNode& set, AllowListNode& list);

// Marks the resource in every scope that it belongs to now. `node_lookers`: the scopes that looked a node up.
void mark_pod(const PodNode& pod, const std::vector<Scope*>& node_lookers);
void mark_peer_set(const PeerSetNode& set);
// With the Service's endpoints, which come and go with it.
void mark_service(const ServiceNode& service, const std::vector<Scope*>& node_lookers);

}  // namespace postern::graph
