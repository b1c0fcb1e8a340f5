#include "cli/cluster_findings.hpp"

#include <charconv>
#include <optional>
#include <utility>

#include "cli/node_path.hpp"
#include "cli/sidecar_report.hpp"

namespace postern::cli {
namespace {

using Level = Finding::Level;

constexpr std::pair oldest_kubernetes{1, 29};  // native sidecars

// "v1.34.2+k3s1" -> 1, 34.
std::optional<std::pair<int, int>> release_of(std::string_view text) {
  if (text.starts_with('v')) text.remove_prefix(1);
  std::pair<int, int> out;
  const auto major = std::from_chars(text.data(), text.data() + text.size(), out.first);
  if (major.ec != std::errc{} || major.ptr == text.data() + text.size() || *major.ptr != '.') return std::nullopt;
  const auto minor = std::from_chars(major.ptr + 1, text.data() + text.size(), out.second);
  if (minor.ec != std::errc{}) return std::nullopt;
  return out;
}

std::string asked_for(const Permission& permission) {
  return permission.verb + " " + permission.resource + (permission.group.empty() ? "" : "." + permission.group) +
         (permission.ns.empty() ? "" : " in " + permission.ns);
}

}  // namespace

std::string_view name_of(Level level) {
  switch (level) {
    case Level::ok: return "ok";
    case Level::warning: return "warning";
    case Level::error: return "error";
  }
  return {};
}

void add_platform(const ClusterFacts& facts, std::vector<Finding>& out) {
  const std::string version = text_at(*facts.version, {"gitVersion"});
  const auto release = release_of(version);
  if (!release || *release < oldest_kubernetes) {
    out.push_back({Level::error, "Kubernetes",
                   "the API server is of version '" + version + "': sidecars are native sidecars, which it does not know",
                   "upgrade the cluster to Kubernetes 1.29 or later"});
  } else {
    out.push_back({Level::ok, "Kubernetes", "the API server is of version " + version + " (1.29 or later is needed)"});
  }
  if (!facts.nodes) {
    out.push_back({Level::warning, "Kubernetes", "nodes could not be looked at: " + facts.nodes.error().text(),
                   "ask as somebody who may list nodes"});
    return;
  }
  for (const Node& node : *facts.nodes) {
    const std::string kubelet = text_at(node, {"status", "nodeInfo", "kubeletVersion"});
    const auto of_it = release_of(kubelet);
    if (!of_it || *of_it >= oldest_kubernetes) continue;
    out.push_back({Level::error, "Kubernetes",
                   "the kubelet of node " + text_at(node, {"metadata", "name"}) + " is of version " + kubelet +
                       ": it would wait for the sidecar to end before it starts the application",
                   "upgrade the node to 1.29 or later, or keep injected pods off it (nodeSelector, taints)"});
  }
}

void add_versions(const ClusterFacts& facts, std::vector<Finding>& out) {
  std::string first;
  for (const ReplicaFacts& replica : facts.replicas) {
    const std::string version = text_at(replica.streams, {"version"});
    if (version.empty()) continue;
    if (version != POSTERN_VERSION) {
      out.push_back({Level::warning, "versions",
                     "postern-control is of version " + version + " (" + replica.pod + "), and this posternctl of " POSTERN_VERSION,
                     "use the posternctl of the control plane's version: what one says, the other may not know"});
    } else if (first.empty()) {
      first = version;
    }
  }
  if (!first.empty()) out.push_back({Level::ok, "versions", "postern-control and this posternctl are of version " + first});
}

void add_permissions(const ClusterFacts& facts, bool pre, std::vector<Finding>& out) {
  const std::size_t before = out.size();
  for (const Permission& permission : facts.permissions) {
    if (permission.allowed) continue;
    if (pre) {
      out.push_back({Level::error, "permissions", "you may not " + asked_for(permission) + ", which the chart needs",
                     "install as somebody who may, such as a cluster-admin"});
    } else {
      out.push_back({Level::warning, "permissions", "you may not " + asked_for(permission) + "; what needs it is not checked",
                     "ask as somebody who may"});
    }
  }
  if (out.size() == before)
    out.push_back(
        {Level::ok, "permissions", pre ? "you may make everything that the chart has" : "you may read everything that is checked"});
}

std::vector<Finding> findings_before(const ClusterFacts& facts) {
  std::vector<Finding> out;
  add_platform(facts, out);
  add_permissions(facts, true, out);
  add_pod_security(facts, out);
  add_egress(facts, out);
  return out;
}

std::vector<Finding> findings_after(const ClusterFacts& facts) {
  std::vector<Finding> out;
  add_platform(facts, out);
  add_permissions(facts, false, out);
  add_control_plane(facts, out);
  add_versions(facts, out);
  add_webhooks(facts, out);
  add_pod_security(facts, out);
  add_sidecars(facts, out);
  add_policies(facts, out);
  add_egress(facts, out);
  return out;
}

}  // namespace postern::cli
