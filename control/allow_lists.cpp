#include "control/allow_lists.hpp"

#include <algorithm>
#include <utility>

#include "control/resource_hash.hpp"
#include "control/scope.hpp"

namespace postern {

using graph::AllowListKey;
using graph::AllowListNode;
using graph::PeerSetNode;
using graph::Scope;

namespace {

bool names(const AllowListNode& list, const std::string& policy) {
  return std::binary_search(list.key.policies.begin(), list.key.policies.end(), policy);
}

std::vector<bool> egress_sets(const PolicyRules& rules) {
  std::vector<bool> egress(rules.peer_sets.size());
  for (const AllowRule& rule : rules.list.egress.rules) {
    for (const AllowedPeer& peer : rule.peers) {
      if (const auto* set = std::get_if<PeerSetRef>(&peer.peer)) egress[set->index] = true;
    }
  }
  return egress;
}

}  // namespace

AllowListKey AllowLists::key_of(const Pod& pod) const {
  AllowListKey key{.ns = pod.workload.ns, .policies = {}, .default_deny = false};
  for (const NetworkPolicy* policy : policies_selecting(store_.view(), pod)) key.policies.push_back(policy->name);
  key.default_deny = store_.mesh().settings.default_policy == DefaultPolicy::deny && pod.workload.meshed && !pod.workload.host_network;
  return key;
}

void AllowLists::attach(Scope& scope) {
  scopes_[scope.self().key.ns].push_back(&scope);
  move(scope);
}

void AllowLists::detach(Scope& scope) {
  moved_.erase(&scope);
  const auto ns = scopes_.find(scope.self().key.ns);
  std::erase(ns->second, &scope);
  if (ns->second.empty()) scopes_.erase(ns);
  if (AllowListNode* list = scope.list()) leave(*list, scope);
  scope.set_list(nullptr);
}

void AllowLists::leave(AllowListNode& list, Scope& scope) {
  std::erase(list.scopes, &scope);
  if (!list.scopes.empty()) return;
  for (PeerSetNode* set : list.sets) {
    unuse(*set, list);
    sets_.release_unused(*set);
  }
  outdated_.erase(&list);
  lists_.erase(AllowListKey(list.key));
}

// The new list first, so that sets in both are not made anew.
void AllowLists::move(Scope& scope) {
  AllowListKey key = key_of(*scope.self().pod);
  AllowListNode* before = scope.list();
  if (before != nullptr && before->key == key) return;
  const auto [entry, is_new] = lists_.try_emplace(std::move(key));
  AllowListNode& list = entry->second;
  list.scopes.push_back(&scope);
  scope.set_list(&list);
  if (is_new) {
    list.key = entry->first;
    compile(list);
  }
  if (before != nullptr) leave(*before, scope);
  scope.mark_all();
}

void AllowLists::compile(AllowListNode& list) {
  PolicyRules rules = rules_of(store_.view(), store_.mesh().settings, *list.scopes.front()->self().pod);
  if (rules.list == list.rules.list && rules.peer_sets == list.rules.peer_sets) return;
  ++made_;
  const std::vector<bool> egress = egress_sets(rules);
  const bool same_sets = rules.peer_sets == list.rules.peer_sets && egress == list.egress;
  list.rules = std::move(rules);
  list.egress = egress;
  list.resource.outdated();
  for (Scope* scope : list.scopes) {
    if (same_sets) {
      scope->mark(ResourceKind::allow_list, {});
    } else {
      scope->mark_all();
    }
  }
  if (same_sets) return;
  const std::vector<PeerSetNode*> before = std::exchange(list.sets, {});
  for (std::size_t i = 0; i < list.rules.peer_sets.size(); ++i) {
    PeerSetNode& set = sets_.get(list.rules.peer_sets[i]);
    use(set, list, egress[i]);
    list.sets.push_back(&set);
  }
  for (PeerSetNode* set : before) {
    unuse(*set, list);
    sets_.release_unused(*set);
  }
}

void AllowLists::policy_changed(const ObjectKey& key) {
  const auto policy = store_.view().policies.find(key);
  const bool exists = policy != store_.view().policies.end();
  const bool replaced_before = replacing_.contains(key);
  const bool replaces = exists && !policy->second.replaces.empty();
  if (replaces) {
    replacing_.insert(key);
  } else if (replaced_before) {
    replacing_.erase(key);
  }
  if (replaces || replaced_before) recompile_namespace(key.ns);

  const auto ns = scopes_.find(key.ns);
  if (ns == scopes_.end()) return;
  for (Scope* scope : ns->second) {
    const Pod& pod = *scope->self().pod;
    const bool did = names(*scope->list(), key.name);
    const bool does = exists && !pod.workload.host_network && matches(policy->second.pod_selector, pod.labels);
    if (did) outdated_.insert(scope->list());
    if (did != does) moved_.insert(scope);
  }
}

void AllowLists::recompile_namespace(const std::string& ns) {
  for (auto it = lists_.lower_bound({.ns = ns, .policies = {}, .default_deny = false}); it != lists_.end() && it->first.ns == ns; ++it) {
    outdated_.insert(&it->second);
  }
}

void AllowLists::namespace_changed(const std::string& ns) { recompile_namespace(ns); }

void AllowLists::everything_changed() {
  for (auto& [key, list] : lists_) outdated_.insert(&list);
  for (const auto& [ns, scopes] : scopes_) moved_.insert(scopes.begin(), scopes.end());
}

void AllowLists::renew() {
  for (Scope* scope : std::exchange(moved_, {})) move(*scope);
  for (AllowListNode* list : std::exchange(outdated_, {})) compile(*list);
}

const ResourcePtr& AllowLists::resource(AllowListNode& list) const {
  if (list.resource.current() != nullptr) return list.resource.current();
  AllowListRecord record{.list = list.rules.list, .peer_sets = {}};
  for (const PeerSetNode* set : list.sets) record.peer_sets.push_back(set->id);
  return list.resource.keep(make_resource("allow-list", encode(record)));
}

}  // namespace postern
