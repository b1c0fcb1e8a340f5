// compile(): NetworkPolicies and the cluster's objects become what one sidecar decides with.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/snapshot.hpp"
#include "authz/snapshot_parts.hpp"
#include "base/result.hpp"

namespace postern {

// What one peer of a rule selects: both selectors canonical, so that equal ones are one peer set.
struct PeerSelectors {
  LabelSelector namespaces;
  LabelSelector pods;

  auto operator<=>(const PeerSelectors&) const = default;
};
// One text per value, the same everywhere: what a peer set's id is made of. app=web|kubernetes.io/metadata.name=shop
std::string text_of(const PeerSelectors& selectors);

// The rules of one workload, from the policies alone: `list.peer_sets` is empty, and each PeerSetRef indexes `peer_sets`.
struct PolicyRules {
  AllowList list;
  std::vector<PeerSelectors> peer_sets;  // in the order of first use
};

// The policies of the pod's namespace that select it, by name. None for a hostNetwork pod.
std::vector<const NetworkPolicy*> policies_selecting(const ClusterView& view, const Pod& pod);
// What they say. It depends on the policies and the Namespace object of the pod's namespace, on the settings and on the pod's labels and
// whether it is meshed; never on other pods.
PolicyRules rules_of(const ClusterView& view, const MeshSettings& settings, const Pod& pod);
// The labels that selectors see, with the name label that the API server sets; also for a namespace that the view does not have.
Labels labels_of_namespace(const ClusterView& view, const std::string& ns);
// The record of a pod; `mesh` is the mode where neither the pod nor its namespace sets one.
PodRecord record_of(const Pod& pod, const ClusterView& view, MtlsMode mesh);
// The set as it stands in the view, from nothing: hostNetwork and ended pods are no members.
PeerSetRecord record_of(const PeerSelectors& selectors, const ClusterView& view);
// The addresses of the pod's own node (MeshSettings::node_addresses), sorted; and those of every node and hostNetwork pod.
std::vector<IpAddress> own_node_addresses(const ClusterView& view, const Pod& pod);
std::vector<IpAddress> node_addresses_of(const ClusterView& view);

// Compiles many workloads of one view; they share the topology and the peer sets.
// REQUIRES: the view outlives the compiler (not the snapshots) and does not change. One thread.
class Compiler {
 public:
  Compiler(const ClusterView& view, const MeshSettings& settings);

  // Fails when there is no such pod, or it has ended.
  Result<std::shared_ptr<const PolicySnapshot>> compile(const WorkloadKey& self, std::uint64_t generation,
                                                        std::chrono::system_clock::time_point made_at = {});
  const std::shared_ptr<const Topology>& topology() const { return topology_; }

 private:
  std::shared_ptr<const PeerSet> peer_set(const PeerSelectors& selectors);

  const ClusterView& view_;
  MeshSettings settings_;
  std::shared_ptr<const Topology> topology_;
  std::vector<const Labels*> labels_;  // beside the topology's workloads; into the view
  std::map<PeerSelectors, std::shared_ptr<const PeerSet>> peer_sets_;
};

// Pure: the same view, settings and generation give the equal snapshot.
Result<std::shared_ptr<const PolicySnapshot>> compile(const ClusterView& view, const WorkloadKey& self, const MeshSettings& settings,
                                                      std::uint64_t generation, std::chrono::system_clock::time_point made_at = {});

}  // namespace postern
