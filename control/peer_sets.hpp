// PeerSets: the peer sets that subscribed pods' rules name, and their members, kept current pod by pod and namespace by namespace.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "control/scope_graph.hpp"

namespace postern {

class PeerSets {
 public:
  // REQUIRES: `pods` outlives this.
  explicit PeerSets(graph::Pods& pods) : pods_(pods) {}
  PeerSets(const PeerSets&) = delete;
  PeerSets& operator=(const PeerSets&) = delete;

  // The labels that selectors see of a namespace. Its pods' memberships are to be renewed when true: some selector's answer is another.
  bool set_namespace(const std::string& name, const Labels& labels);
  // There is neither a Namespace object nor a pod of it. REQUIRES: the memberships of its last pods have been renewed.
  void remove_namespace(const std::string& name);
  bool has_namespace(const std::string& name) const { return namespaces_.contains(name); }

  // Joins and leaves the sets as the pod is now. REQUIRES: its namespace has been set.
  void renew(graph::PodNode& pod);

  // The set of these selectors, made from the pods as they are now where nobody uses it yet. Lives until release_unused().
  graph::PeerSetNode& get(const PeerSelectors& selectors);
  void release_unused(graph::PeerSetNode& set);

  const ResourcePtr& resource(graph::PeerSetNode& set) const;
  const graph::PeerSetNode* find(const std::string& id) const;
  std::size_t size() const { return sets_.size(); }
  std::uint64_t made() const { return made_; }  // from nothing, so far

 private:
  struct NamespaceState {
    Labels labels;
    std::vector<graph::NamespaceSelectorNode*> selectors;  // those that match it
  };

  graph::NamespaceSelectorNode& selector_node(const LabelSelector& selector);
  void set_matched(graph::NamespaceSelectorNode& node, const std::string& name, bool matched);

  graph::Pods& pods_;
  std::map<std::string, NamespaceState> namespaces_;
  std::map<LabelSelector, graph::NamespaceSelectorNode> selectors_;
  std::map<PeerSelectors, graph::PeerSetNode> sets_;
  std::map<std::string, graph::PeerSetNode*> by_id_;
  std::vector<graph::PeerSetNode*> wanted_;  // of renew(), kept for its memory
  std::uint64_t made_ = 0;
};

// Whether selectors may match the pod at all: it is there, has not ended, and is not hostNetwork (NetworkPolicy API).
bool may_be_member(const graph::PodNode& pod);

}  // namespace postern
