// SnapshotParts: what a PolicySnapshot is put together from when it comes over the control plane's stream, a part at a time.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "authz/allow_list.hpp"
#include "authz/cluster.hpp"
#include "authz/service_record.hpp"
#include "authz/snapshot.hpp"
#include "base/result.hpp"

namespace postern {

// A workload record as it travels: without labels, which only the control plane needs, and without probe_ports, which are nobody's
// business but the pod's own (SnapshotParts::probe_ports).
struct PodRecord {
  Workload workload;  // `mtls` is resolved: the pod's, else its namespace's, else the mesh's
  std::string node_name;
  bool terminating = false;

  bool operator==(const PodRecord&) const = default;
};

// A peer set as it travels. Where its podSelector is empty it is a predicate, whole namespaces by name, and has no members: their pods
// are looked up when they call or are called.
struct PeerSetRecord {
  LabelSelector namespaces;
  LabelSelector pods;
  bool whole_namespaces = false;
  std::vector<std::string> namespace_names;  // only where whole_namespaces; sorted. None where `namespaces` is empty: that is every one
  std::vector<WorkloadKey> members;          // only where not; sorted

  bool operator==(const PeerSetRecord&) const = default;
};

// The rules of one workload; `peer_sets` names the sets that the rules' PeerSetRef index, and list.peer_sets is empty.
struct AllowListRecord {
  AllowList list;
  std::vector<std::string> peer_sets;

  bool operator==(const AllowListRecord& other) const = default;
};

// The roots of the mesh's built-in CA. They decide nothing here: who proves identities takes them (certs).
struct TrustBundleRecord {
  std::uint64_t sequence = 0;  // of two, the larger is the newer
  std::string roots;           // PEM

  bool operator==(const TrustBundleRecord&) const = default;
};

// The roots of another trust domain, which control fetched or read. They decide nothing here, either.
struct FederatedBundleRecord {
  std::optional<std::uint64_t> sequence;  // spiffe_sequence: of two, the larger is the newer
  std::string roots;                      // PEM

  bool operator==(const FederatedBundleRecord&) const = default;
};

// The mesh's settings as one sidecar needs them: settings.node_addresses are those of its own node.
struct SnapshotParts {
  WorkloadKey self;
  std::optional<MeshSettings> settings;            // nothing: not received yet
  std::optional<AllowListRecord> allow_list;       // nothing: not received yet, which is not the same as an empty one
  std::vector<ProbePort> probe_ports;              // of self
  std::map<std::string, PeerSetRecord> peer_sets;  // by the name that AllowListRecord uses
  std::map<WorkloadKey, PodRecord> pods;           // self, and all members, endpoints and looked-up peers
  std::map<ObjectKey, ServiceRecord> services;
  std::optional<TrustBundleRecord> trust_bundle = {};
  std::map<std::string, FederatedBundleRecord> federated_bundles = {};  // by trust domain
  std::vector<IpAddress> nodes;  // addresses of the cluster's nodes that are known; NodePorts are resolved there

  bool operator==(const SnapshotParts&) const = default;
};

// Puts a snapshot together. Fails, naming what is missing, when settings or allow list have not come, `self` is not among the pods, or a
// rule names a peer set that is not there: half a state is never enforced. A member without a record is nobody's address yet, and is left
// out.
Result<std::shared_ptr<const PolicySnapshot>> assemble(const SnapshotParts& parts, std::uint64_t generation,
                                                       std::chrono::system_clock::time_point made_at);

}  // namespace postern
