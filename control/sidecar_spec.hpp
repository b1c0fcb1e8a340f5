// What the injector adds to a pod: two init containers and two volumes, spelled out with every default of the API, so that what comes back
// from the API server can be compared with it.
#pragma once

#include <string_view>

#include "base/document.hpp"
#include "control/injection_options.hpp"
#include "control/injection_settings.hpp"

namespace postern {

inline constexpr std::string_view redirect_container = "postern-redirect";
inline constexpr std::string_view sidecar_container = "postern-proxy";
inline constexpr std::string_view state_volume = "postern-state";
inline constexpr std::string_view token_volume = "postern-token";
inline constexpr Port sidecar_health_port{15020};

// Programs the pod's redirection and ends: the only container with NET_ADMIN and NET_RAW.
Node redirect_container_spec(const InjectionOptions& options, const InjectionSettings& settings);
// The sidecar as a native sidecar: an init container with restartPolicy Always (Kubernetes 1.29), which its startup probe holds everything
// else back for until it has an SVID and its first policies.
Node sidecar_container_spec(const InjectionOptions& options, const InjectionSettings& settings);
// Memory-backed; the last good state and the SVID's key.
Node state_volume_spec();
// A token of the pod's service account for postern-control alone (audience), renewed by the kubelet.
Node token_volume_spec();

// Whether `actual` is `expected` but for what API servers and their admission plugins add to any container: limits of a LimitRange, the
// mount of the service account's default token. Quantities are compared by value.
bool is_container_as_injected(const Node& expected, const Node& actual);

}  // namespace postern
