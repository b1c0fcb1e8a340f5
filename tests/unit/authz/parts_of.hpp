// The parts that a control plane would send for one pod of a view, whole or only what its rules refer to.
#pragma once

#include <set>

#include "authz/compiler.hpp"
#include "authz/snapshot_parts.hpp"

namespace postern::test {

// The settings, rules and peer sets of a sidecar, and its own record.
inline SnapshotParts own_parts(const ClusterView& view, const MeshSettings& settings, const WorkloadKey& self) {
  const Pod& pod = view.pods.at(self);
  SnapshotParts parts{.self = self,
                      .settings = settings,
                      .allow_list = AllowListRecord{},
                      .probe_ports = {},
                      .peer_sets = {},
                      .pods = {},
                      .services = {},
                      .nodes = node_addresses_of(view)};
  for (const IpAddress& address : own_node_addresses(view, pod)) parts.settings->node_addresses.push_back(address);
  PolicyRules rules = rules_of(view, settings, pod);
  parts.allow_list->list = std::move(rules.list);
  for (const PeerSelectors& selectors : rules.peer_sets) {
    parts.allow_list->peer_sets.push_back(text_of(selectors));
    parts.peer_sets[text_of(selectors)] = record_of(selectors, view);
  }
  parts.probe_ports = pod.workload.probe_ports;
  parts.pods[self] = record_of(pod, view, settings.mtls);
  return parts;
}

inline void add_pod(SnapshotParts& parts, const ClusterView& view, const MeshSettings& settings, const WorkloadKey& key) {
  const auto pod = view.pods.find(key);
  if (pod != view.pods.end() && !pod->second.ended()) parts.pods[key] = record_of(pod->second, view, settings.mtls);
}

// Every pod and Service of the view.
inline SnapshotParts all_parts(const ClusterView& view, const MeshSettings& settings, const WorkloadKey& self) {
  SnapshotParts parts = own_parts(view, settings, self);
  for (const auto& [key, pod] : view.pods) add_pod(parts, view, settings, key);
  for (ServiceRecord& service : resolve_services(view)) {
    const ObjectKey key = service.key;
    parts.services.emplace(key, std::move(service));
  }
  for (auto& [key, pod] : parts.pods) pod.workload.probe_ports.clear();  // as they travel
  return parts;
}

// Only the pods that the peer sets name.
inline SnapshotParts scoped_parts(const ClusterView& view, const MeshSettings& settings, const WorkloadKey& self) {
  SnapshotParts parts = own_parts(view, settings, self);
  for (const auto& [id, set] : parts.peer_sets) {
    for (const WorkloadKey& member : set.members) add_pod(parts, view, settings, member);
  }
  return parts;
}

}  // namespace postern::test
