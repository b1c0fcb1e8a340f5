#include "control/peer_sets.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "control/resource_hash.hpp"

namespace postern {

using graph::NamespaceSelectorNode;
using graph::PeerSetNode;
using graph::PodNode;

namespace {

// The namespaces that a selector names by their immutable label, or null: then every namespace is to be looked at.
const std::vector<std::string>* named_namespaces(const LabelSelector& canonical) {
  for (const SelectorRequirement& requirement : canonical.match_expressions) {
    if (requirement.op == SelectorOperator::in && requirement.key == namespace_name_label) return &requirement.values;
  }
  return nullptr;
}

}  // namespace

bool may_be_member(const PodNode& pod) { return pod.pod != nullptr && !pod.pod->workload.host_network; }

void PeerSets::set_matched(NamespaceSelectorNode& node, const std::string& name, bool matched) {
  const auto at = std::lower_bound(node.matched.begin(), node.matched.end(), name);
  if (matched) {
    node.matched.insert(at, name);
  } else {
    node.matched.erase(at);
  }
  if (node.selector.empty()) return;  // "every namespace" names none
  for (PeerSetNode* set : node.sets) {
    if (!set->whole_namespaces) continue;
    set->resource.outdated();
    mark_peer_set(*set);
  }
}

bool PeerSets::set_namespace(const std::string& name, const Labels& labels) {
  const auto [entry, is_new] = namespaces_.try_emplace(name);
  NamespaceState& state = entry->second;
  if (!is_new && state.labels == labels) return false;
  state.labels = labels;
  const auto before = std::exchange(state.selectors, {});
  bool changed = false;
  for (auto& [selector, node] : selectors_) {
    const bool did = std::find(before.begin(), before.end(), &node) != before.end();
    const bool does = matches(selector, labels);
    if (does) state.selectors.push_back(&node);
    if (did == does) continue;
    set_matched(node, name, does);
    changed = true;
  }
  return changed;
}

void PeerSets::remove_namespace(const std::string& name) {
  const auto entry = namespaces_.find(name);
  if (entry == namespaces_.end()) return;
  for (NamespaceSelectorNode* node : entry->second.selectors) set_matched(*node, name, false);
  namespaces_.erase(entry);
}

void PeerSets::renew(PodNode& pod) {
  wanted_.clear();
  if (may_be_member(pod)) {
    for (const NamespaceSelectorNode* node : namespaces_.at(pod.key.ns).selectors) {
      for (PeerSetNode* set : node->sets) {
        if (!set->whole_namespaces && matches(set->selectors.pods, pod.pod->labels)) wanted_.push_back(set);
      }
    }
    std::sort(wanted_.begin(), wanted_.end(), std::less<>());
  }
  if (wanted_ == pod.sets) return;
  const std::vector<PeerSetNode*> before = pod.sets;
  std::vector<PeerSetNode*> changed;
  std::set_difference(before.begin(), before.end(), wanted_.begin(), wanted_.end(), std::back_inserter(changed), std::less<>());
  for (PeerSetNode* set : changed) leave(*set, pod);
  changed.clear();
  std::set_difference(wanted_.begin(), wanted_.end(), before.begin(), before.end(), std::back_inserter(changed), std::less<>());
  for (PeerSetNode* set : changed) join(*set, pod);
}

NamespaceSelectorNode& PeerSets::selector_node(const LabelSelector& selector) {
  const auto [entry, is_new] = selectors_.try_emplace(selector);
  NamespaceSelectorNode& node = entry->second;
  if (!is_new) return node;
  node.selector = selector;
  const auto consider = [&](const std::string& name, NamespaceState& state) {
    if (!matches(selector, state.labels)) return;
    node.matched.push_back(name);
    state.selectors.push_back(&node);
  };
  if (const auto* named = named_namespaces(selector)) {
    for (const std::string& name : *named) {
      if (const auto found = namespaces_.find(name); found != namespaces_.end()) consider(found->first, found->second);
    }
  } else {
    for (auto& [name, state] : namespaces_) consider(name, state);
  }
  return node;
}

PeerSetNode& PeerSets::get(const PeerSelectors& selectors) {
  const auto [entry, is_new] = sets_.try_emplace(selectors);
  PeerSetNode& set = entry->second;
  if (!is_new) return set;
  ++made_;
  set.selectors = selectors;
  set.id = content_hash(text_of(selectors));
  set.whole_namespaces = selectors.pods.empty();
  set.namespaces = &selector_node(selectors.namespaces);
  set.namespaces->sets.push_back(&set);
  by_id_.emplace(set.id, &set);
  if (set.whole_namespaces) return set;
  for (const std::string& ns : set.namespaces->matched) {
    for (auto it = pods_.lower_bound({ns, ""}); it != pods_.end() && it->first.ns == ns; ++it) {
      PodNode& pod = it->second;
      if (may_be_member(pod) && matches(selectors.pods, pod.pod->labels)) {
        set.members.push_back(&pod);
        pod.sets.insert(std::lower_bound(pod.sets.begin(), pod.sets.end(), &set, std::less<>()), &set);
      }
    }
  }
  return set;
}

void PeerSets::release_unused(PeerSetNode& set) {
  if (!set.users.empty()) return;
  for (PodNode* pod : set.members) pod->sets.erase(std::lower_bound(pod->sets.begin(), pod->sets.end(), &set, std::less<>()));
  NamespaceSelectorNode& node = *set.namespaces;
  node.sets.erase(std::find(node.sets.begin(), node.sets.end(), &set));
  if (node.sets.empty()) {
    for (const std::string& name : node.matched) {
      auto& selectors = namespaces_.at(name).selectors;
      selectors.erase(std::find(selectors.begin(), selectors.end(), &node));
    }
    selectors_.erase(LabelSelector(node.selector));
  }
  by_id_.erase(set.id);
  sets_.erase(PeerSelectors(set.selectors));
}

const ResourcePtr& PeerSets::resource(PeerSetNode& set) const {
  if (set.resource.current() != nullptr) return set.resource.current();
  PeerSetRecord record{.namespaces = set.selectors.namespaces,
                       .pods = set.selectors.pods,
                       .whole_namespaces = set.whole_namespaces,
                       .namespace_names = {},
                       .members = {}};
  if (set.whole_namespaces) {
    if (!set.selectors.namespaces.empty()) record.namespace_names = set.namespaces->matched;
  } else {
    record.members.reserve(set.members.size());
    for (const PodNode* pod : set.members) record.members.push_back(pod->key);
  }
  return set.resource.keep(make_resource(peer_set_resource_name(set.id), encode(record)));
}

const PeerSetNode* PeerSets::find(const std::string& id) const {
  const auto found = by_id_.find(id);
  return found == by_id_.end() ? nullptr : found->second;
}

}  // namespace postern
