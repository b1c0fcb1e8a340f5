// compile(): NetworkPolicies and the cluster's objects become what one sidecar decides with.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/snapshot.hpp"
#include "base/result.hpp"

namespace postern {

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
  class Lists;
  using Selectors = std::pair<LabelSelector, LabelSelector>;  // namespaces, pods; canonical

  std::shared_ptr<const PeerSet> peer_set(const std::string& policy_ns, const PolicyPeer& peer);
  Labels labels_of_namespace(const std::string& ns) const;
  bool is_audit(const NetworkPolicy& policy) const;
  std::set<ObjectKey> replaced_policies() const;
  AllowList allow_list_of(const Pod& self);

  const ClusterView& view_;
  MeshSettings settings_;
  std::set<ObjectKey> replaced_;  // by a policy in audit
  std::shared_ptr<const Topology> topology_;
  std::vector<const Labels*> labels_;  // beside the topology's workloads; into the view
  std::map<Selectors, std::shared_ptr<const PeerSet>> peer_sets_;
};

// Pure: the same view, settings and generation give the equal snapshot.
Result<std::shared_ptr<const PolicySnapshot>> compile(const ClusterView& view, const WorkloadKey& self, const MeshSettings& settings,
                                                      std::uint64_t generation, std::chrono::system_clock::time_point made_at = {});

}  // namespace postern
