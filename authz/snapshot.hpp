// PolicySnapshot: everything one sidecar decides with. Immutable; published to every worker as shared_ptr<const>.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "authz/allow_list.hpp"
#include "authz/denied_identities.hpp"
#include "authz/verdict.hpp"
#include "authz/workload.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"
#include "base/spiffe_id.hpp"

namespace postern {

class DecisionIndex;
class Topology;
struct ServiceBackends;
struct SnapshotParts;

enum class DefaultPolicy : std::uint8_t { kubernetes, deny };  // of a pod that no policy selects
enum class NodeTraffic : std::uint8_t { probes, all, none };   // architecture section 2c

// What holds for the whole mesh.
struct MeshSettings {
  TrustDomain trust_domain;
  DefaultPolicy default_policy = DefaultPolicy::kubernetes;
  NodeTraffic node_traffic = NodeTraffic::probes;
  MtlsMode mtls = MtlsMode::strict;
  bool audit = false;                     // every policy counts as in audit
  std::vector<Cidr> cluster_cidrs;        // an unknown address inside them is refused, not "outside"
  std::vector<IpAddress> node_addresses;  // of the pod's own node, as the pod sees them
  DeniedIdentities denied;                // refused whatever policy says

  bool operator==(const MeshSettings&) const = default;
};

struct Destination {
  enum class Kind : std::uint8_t {
    self,        // this pod, by its own address or through a Service
    workload,    // a pod
    outside,     // no pod; policy's ipBlock and "any" rules can allow it
    unknown,     // inside the cluster's ranges, but not known: refused
    no_endpoint  // a Service without a usable endpoint
  };
  Kind kind = Kind::unknown;
  const Workload* workload = nullptr;
  SocketAddress address = {};     // resolved: the pod's own address and target port
  std::string_view service = {};  // "namespace/name" when a Service was resolved; lives as long as the snapshot
  std::uint32_t candidates = 1;   // how many endpoints there are to try
};

// Why a SPIFFE ID is not that of a workload we know.
enum class IdentityError : std::uint8_t {
  none,
  wrong_trust_domain,
  not_a_workload,    // the path is no pod's and no service account's
  unknown_workload,  // no such pod
  uid_mismatch,      // a pod of that name, but another one (deleted and recreated)
  account_mismatch,  // the pod runs under another service account
  address_mismatch,  // an ID without /pod/: the source address is not a pod of that account
};
std::string_view name_of(IdentityError error);
// Of another trust domain, or of a path that no pod has. Not: the ID of a pod that is gone, or that comes from elsewhere.
bool is_outsider(IdentityError error);

struct IdentityLookup {
  const Workload* workload = nullptr;
  IdentityError error = IdentityError::none;
};

// The other end of a connection as a decision sees it.
struct Peer {
  const Workload* workload = nullptr;  // null: no pod, or not known
  IpAddress address;
  // False for plaintext in strict mode: then only ipBlock and "any" rules can match (architecture section 2b).
  bool matches_peer_sets = true;
  // An authenticated SPIFFE ID that is no pod's of this cluster (is_outsider); `workload` is null then. Refused unless a rule lists it, or
  // its trust domain is allowed; it never matches what selects pods.
  const SpiffeId* outsider = nullptr;
};

class PolicySnapshot {
 public:
  PolicySnapshot(const PolicySnapshot&) = delete;  // decisions point into it
  PolicySnapshot& operator=(const PolicySnapshot&) = delete;

  std::uint64_t generation() const { return generation_; }
  std::chrono::system_clock::time_point made_at() const { return made_at_; }
  const MeshSettings& settings() const { return settings_; }
  const Workload& self() const { return *self_; }
  const AllowList& allow_list() const { return allow_list_; }

  // The pod that has this address (never a hostNetwork pod), or nullptr.
  const Workload* workload_at(const IpAddress& address) const;
  bool is_own_node(const IpAddress& address) const;
  // Resolves an authenticated SPIFFE ID to its record (architecture section 3): /pod/<name>/<uid> must equal the record's;
  // an ID that names only a service account needs `source` to be the address of a pod of that account.
  IdentityLookup identify(const SpiffeId& id, const IpAddress& source) const;
  // Resolves an original destination. `pick` chooses among a Service's endpoints: (pick + attempt) % candidates. Of a Service
  // with sessionAffinity ClientIP this pod always gets the same one: there, `pick` is not used.
  Destination resolve(const SocketAddress& original, std::uint32_t pick, std::uint32_t attempt = 0) const;

  const Topology& topology() const { return *topology_; }
  const DecisionIndex& index(PolicyDirection direction) const { return direction == PolicyDirection::ingress ? *ingress_ : *egress_; }

 private:
  friend class Compiler;
  friend Result<std::shared_ptr<const PolicySnapshot>> assemble(const SnapshotParts& parts, std::uint64_t generation,
                                                                std::chrono::system_clock::time_point made_at);
  // REQUIRES: `self` is one of the topology's workloads; the peer sets of `list` index it.
  PolicySnapshot(std::uint64_t generation, std::chrono::system_clock::time_point made_at, MeshSettings settings,
                 std::shared_ptr<const Topology> topology, const Workload& self, AllowList list);
  enum class Reach : std::uint8_t { cluster, node };  // which endpoints count: all, or those of this pod's node
  Destination at_endpoint(const ServiceBackends& backends, Reach reach, IpFamily family, std::uint32_t pick, std::uint32_t attempt) const;
  // What an address is that no workload record names.
  Destination::Kind kind_of_unnamed(const IpAddress& address) const;

  std::uint64_t generation_;
  std::chrono::system_clock::time_point made_at_;
  MeshSettings settings_;
  std::shared_ptr<const Topology> topology_;  // the records that everything here points to
  const Workload* self_;
  AllowList allow_list_;
  std::shared_ptr<const DecisionIndex> ingress_;
  std::shared_ptr<const DecisionIndex> egress_;
};

// Decides one connection. `port` is the destination port at the pod. No allocation; hashed look-ups, so the cost does not
// grow with policies or members. A null snapshot decides Basis::no_policy. NetworkPolicy API: spec.ingress, spec.egress.
// A record of an earlier snapshot is taken for today's record of the same pod (namespace, name and UID).
Verdict decide(const PolicySnapshot* snapshot, PolicyDirection direction, const Peer& peer, Port port, Protocol protocol = Protocol::tcp);

}  // namespace postern
