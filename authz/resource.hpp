// Resource: one named piece of a sidecar's state as it travels over the control plane's stream and lies in the sidecar's state file.
//
// Names: "settings", "allow-list" and "probes" (the receiver's own), "peer-set/<id>", "pod/<namespace>/<name>",
// "service/<namespace>/<name>", "nodes", "trust-bundle", "federated-bundle/<trust domain>". The body is JSON, written the same way every
// time, so that equal content has an equal hash.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "authz/snapshot_parts.hpp"
#include "base/document.hpp"
#include "base/result.hpp"

namespace postern {

struct Resource {
  std::string name;
  std::string hash;  // of the body, by its maker; the receiver only compares
  std::string body;  // JSON

  bool operator==(const Resource&) const = default;
};
using ResourcePtr = std::shared_ptr<const Resource>;

std::string resource_name(const PodRecord& pod);
std::string pod_resource_name(const WorkloadKey& key);
std::string service_resource_name(const ObjectKey& key);
std::string peer_set_resource_name(std::string_view id);

inline constexpr std::string_view trust_bundle_name = "trust-bundle";
inline constexpr std::string_view federated_bundle_prefix = "federated-bundle/";
std::string federated_bundle_resource_name(std::string_view trust_domain);
inline constexpr std::size_t resource_name_bytes = 512;
inline constexpr std::size_t resource_hash_bytes = 128;

// The bodies. `nodes` are addresses. Deterministic. A pod's body leaves its probe ports out: others need not learn its probes' paths.
// REQUIRES: the peers of one rule come from one rule of one policy, as the compiler makes them.
std::string encode(const MeshSettings& settings);
std::string encode(const AllowListRecord& list);
std::string encode(const PeerSetRecord& set);
std::string encode(const PodRecord& pod);
std::string encode(const ServiceRecord& service);
std::string encode_probes(const std::vector<ProbePort>& probes);
std::string encode_trust_bundle(std::uint64_t sequence, std::string_view roots_pem);
std::string encode(const FederatedBundleRecord& bundle);
std::string encode_nodes(const std::vector<IpAddress>& nodes);

// Reads one resource into the part that its name says. An unknown kind of name, an unknown field, a value that is not what it must be, or
// a pod or Service whose body names another object is refused with the resource's name and the field; `parts` is then unchanged.
Result<void> decode_into(SnapshotParts& parts, std::string_view name, const Node& body);
// The body that the part of that name was read from, written again: the same text, as a body has one form only. Nothing where there is
// none.
std::optional<std::string> body_of(const SnapshotParts& parts, std::string_view name);
// Takes the part of that name away. A name that is not there is no error.
void remove_from(SnapshotParts& parts, std::string_view name);

}  // namespace postern
