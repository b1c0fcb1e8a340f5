#include "control/scope_graph.hpp"

#include <algorithm>

#include "control/scope.hpp"

namespace postern::graph {
namespace {

template <class T>
void insert_by_pointer(std::vector<T*>& items, T& item) {
  items.insert(std::lower_bound(items.begin(), items.end(), &item, std::less<>()), &item);
}

template <class T>
void erase_by_pointer(std::vector<T*>& items, T& item) {
  const auto found = std::lower_bound(items.begin(), items.end(), &item, std::less<>());
  if (found != items.end() && *found == &item) items.erase(found);
}

auto position_of(std::vector<PodNode*>& members, const PodNode& pod) {
  return std::lower_bound(members.begin(), members.end(), pod.key, [](const PodNode* a, const WorkloadKey& key) { return a->key < key; });
}

void mark_with_endpoints(Scope& scope, const ServiceNode& service) {
  scope.mark(ResourceKind::service, service.key);
  for (const PodNode* pod : service.pods) scope.mark(ResourceKind::pod, pod->key);
}

void mark_egress_users(const PeerSetNode& set, const ServiceNode& service) {
  for (const auto& user : set.users) {
    if (!user.egress) continue;
    for (Scope* scope : user.list->scopes) mark_with_endpoints(*scope, service);
  }
}

void count(PeerSetNode& set, ServiceNode& service) {
  if (++set.services[&service] == 1) mark_egress_users(set, service);
  ++service.sets[&set];
}

void uncount(PeerSetNode& set, ServiceNode& service) {
  const auto counted = set.services.find(&service);
  if (--counted->second == 0) {
    mark_egress_users(set, service);
    set.services.erase(counted);
    service.sets.erase(&set);
  } else {
    --service.sets[&set];
  }
}

}  // namespace

PodNode& node_of(Pods& pods, const WorkloadKey& key) {
  const auto [entry, is_new] = pods.try_emplace(key);
  if (is_new) entry->second.key = key;
  return entry->second;
}

void release(Pods& pods, PodNode& pod) {
  if (pod.is_unused()) pods.erase(WorkloadKey(pod.key));
}

void join(PeerSetNode& set, PodNode& pod) {
  set.members.insert(position_of(set.members, pod), &pod);
  insert_by_pointer(pod.sets, set);
  set.resource.outdated();
  if (set.egress_users > 0) {
    for (ServiceNode* service : pod.services) count(set, *service);
  }
  mark_peer_set(set);
  for (const auto& user : set.users) {
    for (Scope* scope : user.list->scopes) scope->mark(ResourceKind::pod, pod.key);
  }
}

void leave(PeerSetNode& set, PodNode& pod) {
  mark_peer_set(set);
  for (const auto& user : set.users) {
    for (Scope* scope : user.list->scopes) scope->mark(ResourceKind::pod, pod.key);
  }
  if (set.egress_users > 0) {
    for (ServiceNode* service : pod.services) uncount(set, *service);
  }
  set.members.erase(position_of(set.members, pod));
  erase_by_pointer(pod.sets, set);
  set.resource.outdated();
}

void add_endpoint(ServiceNode& service, PodNode& pod) {
  insert_by_pointer(service.pods, pod);
  insert_by_pointer(pod.services, service);
  for (PeerSetNode* set : pod.sets) {
    if (set->egress_users > 0) count(*set, service);
  }
}

void remove_endpoint(ServiceNode& service, PodNode& pod) {
  for (PeerSetNode* set : pod.sets) {
    if (set->egress_users > 0) uncount(*set, service);
  }
  erase_by_pointer(service.pods, pod);
  erase_by_pointer(pod.services, service);
}

void use(PeerSetNode& set, AllowListNode& list, bool egress) {
  set.users.push_back({&list, egress});
  if (!egress || ++set.egress_users > 1) return;
  for (PodNode* pod : set.members) {
    for (ServiceNode* service : pod->services) count(set, *service);
  }
}

void unuse(PeerSetNode& set, AllowListNode& list) {
  const auto user = std::find_if(set.users.begin(), set.users.end(), [&](const auto& candidate) { return candidate.list == &list; });
  const bool egress = user->egress;
  set.users.erase(user);
  if (!egress || --set.egress_users > 0) return;
  for (PodNode* pod : set.members) {
    for (ServiceNode* service : pod->services) uncount(set, *service);
  }
}

void mark_pod(const PodNode& pod, const std::vector<Scope*>& node_lookers) {
  for (Scope* scope : pod.scopes) scope->mark(ResourceKind::pod, pod.key);
  for (Scope* scope : pod.lookers) scope->mark(ResourceKind::pod, pod.key);
  for (const PeerSetNode* set : pod.sets) {
    for (const auto& user : set->users) {
      for (Scope* scope : user.list->scopes) scope->mark(ResourceKind::pod, pod.key);
    }
  }
  for (const ServiceNode* service : pod.services) {
    for (Scope* scope : service->lookers) scope->mark(ResourceKind::pod, pod.key);
    if (service->has_node_port) {
      for (Scope* scope : node_lookers) scope->mark(ResourceKind::pod, pod.key);
    }
    for (const auto& [set, members] : service->sets) {
      for (const auto& user : set->users) {
        if (!user.egress) continue;
        for (Scope* scope : user.list->scopes) scope->mark(ResourceKind::pod, pod.key);
      }
    }
  }
}

void mark_peer_set(const PeerSetNode& set) {
  for (const auto& user : set.users) {
    for (Scope* scope : user.list->scopes) scope->mark(ResourceKind::peer_set, {.ns = {}, .name = set.id});
  }
}

void mark_service(const ServiceNode& service, const std::vector<Scope*>& node_lookers) {
  for (Scope* scope : service.lookers) mark_with_endpoints(*scope, service);
  for (const auto& [set, members] : service.sets) mark_egress_users(*set, service);
  if (!service.has_node_port) return;
  for (Scope* scope : node_lookers) mark_with_endpoints(*scope, service);
}

}  // namespace postern::graph
