// AllowLists: the rules of the subscribed pods. Pods of a namespace that the same policies select share one list, compiled when the first
// of them subscribes and again when one of its policies changes.
#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "control/cluster_store.hpp"
#include "control/peer_sets.hpp"
#include "control/scope_graph.hpp"

namespace postern {

class AllowLists {
 public:
  // REQUIRES: both outlive this.
  AllowLists(const ClusterStore& store, PeerSets& sets) : store_(store), sets_(sets) {}
  AllowLists(const AllowLists&) = delete;
  AllowLists& operator=(const AllowLists&) = delete;

  void attach(graph::Scope& scope);
  void detach(graph::Scope& scope);

  // What is to be looked at again by renew(): what the old or new version of a policy selects; a namespace; a pod; everything.
  void policy_changed(const ObjectKey& key);
  void namespace_changed(const std::string& ns);
  void pod_changed(graph::Scope& scope) { moved_.insert(&scope); }
  void everything_changed();
  // REQUIRES: pods, namespaces and Services are as the view has them.
  void renew();

  const ResourcePtr& resource(graph::AllowListNode& list) const;
  std::size_t size() const { return lists_.size(); }
  std::uint64_t made() const { return made_; }

 private:
  graph::AllowListKey key_of(const Pod& pod) const;
  void compile(graph::AllowListNode& list);
  void move(graph::Scope& scope);
  void leave(graph::AllowListNode& list, graph::Scope& scope);
  void recompile_namespace(const std::string& ns);

  const ClusterStore& store_;
  PeerSets& sets_;
  std::map<graph::AllowListKey, graph::AllowListNode> lists_;
  std::map<std::string, std::vector<graph::Scope*>> scopes_;  // by namespace
  std::set<ObjectKey> replacing_;                             // policies that replace others while in audit: they change the others' rules
  std::set<graph::AllowListNode*> outdated_;
  std::set<graph::Scope*> moved_;  // whose policies may be others now
  std::uint64_t made_ = 0;
};

}  // namespace postern
