// WatchEvent: one change of one object, as the API server's watch tells it, decoded.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/snapshot.hpp"

namespace postern {

// The kinds that are watched; the resource's name in the API's paths, and in a Mark.
enum class WatchedKind : std::uint8_t { pods, namespaces, network_policies, services, endpoint_slices, nodes, mesh_config };
inline constexpr std::array watched_kinds{WatchedKind::pods,       WatchedKind::namespaces,      WatchedKind::network_policies,
                                          WatchedKind::services,   WatchedKind::endpoint_slices, WatchedKind::nodes,
                                          WatchedKind::mesh_config};
std::string_view name_of(WatchedKind kind);  // pods, namespaces, networkpolicies, services, endpointslices, nodes, configmaps

// The mesh's ConfigMap, read (its bad values were refused; the last good ones stay).
struct MeshConfig {
  MeshSettings settings;
  std::string epoch;  // data.epoch: changed by a person after the store was restored from a backup

  bool operator==(const MeshConfig&) const = default;
};

using WatchedObject = std::variant<Pod, Namespace, NetworkPolicy, Service, EndpointSlice, ClusterNode, MeshConfig>;

// An object that was found to be unreadable, and what is used in its place.
struct Unreadable {
  WatchedKind kind;
  ObjectKey key;  // the namespace is empty for cluster-wide kinds
  std::string uid;
  std::string reason;  // names the field and the remedy
};

struct WatchEvent {
  enum class Type : std::uint8_t {
    applied,   // added or modified: `object` is the state now
    deleted,   // `key` is gone
    relisted,  // the list is complete: whatever of this kind was not applied since relist_began is gone
    relist_began,
    bookmark,  // only `version` has moved
  };
  Type type = Type::applied;
  WatchedKind kind = WatchedKind::pods;
  ObjectKey key;
  std::uint64_t version = 0;     // resourceVersion: the object's, the deletion's, the list's or the bookmark's
  WatchedObject object = Pod{};  // only where applied
  std::string uid = {};          // of the object, where applied or deleted
};

}  // namespace postern
