// SidecarReport: what is known of each injected pod's sidecar, from its pod, from the control plane and from itself. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "cli/cluster_facts.hpp"

namespace postern::cli {

struct SidecarReport {
  std::string pod;    // namespace/name
  std::string image;  // of its container postern-proxy
  bool connected = false;
  std::string version;                     // of its program; empty where it is not connected
  std::optional<std::int64_t> policy_age;  // seconds since it had the newest policies; 0: it has them; nothing: not known
  std::string state;                       // enforced, behind, refused, waiting, disconnected
  std::string reason;                      // of a refusal or of waiting; why the age is not known
};

// The injected pods that run, by name.
std::vector<SidecarReport> sidecars_of(const ClusterFacts& facts);
// The version of postern-control; empty: no replica could be asked. Of replicas that differ (an upgrade is under way), the first's.
std::string control_version(const ClusterFacts& facts);

// A list of one object for each: for tabulated(), and for JSON. What is not known is null.
Node sidecars_node(const std::vector<SidecarReport>& sidecars);

// The value of a gauge without labels in the text of a /metrics (the Prometheus text format).
std::optional<double> gauge_in(std::string_view metrics, std::string_view name);

}  // namespace postern::cli
