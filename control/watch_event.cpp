#include "control/watch_event.hpp"

namespace postern {

std::string_view name_of(WatchedKind kind) {
  switch (kind) {
    case WatchedKind::pods: return "pods";
    case WatchedKind::namespaces: return "namespaces";
    case WatchedKind::network_policies: return "networkpolicies";
    case WatchedKind::services: return "services";
    case WatchedKind::endpoint_slices: return "endpointslices";
    case WatchedKind::nodes: return "nodes";
    case WatchedKind::mesh_config: return "configmaps";
  }
  return {};
}

}  // namespace postern
