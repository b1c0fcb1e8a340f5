// What a cluster's facts mean for the mesh: findings, each with its remedy. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/cluster_facts.hpp"

namespace postern::cli {

struct Finding {
  // error: something does not work, or will not; warning: it may not be meant so, or could not be looked at.
  enum class Level : std::uint8_t { ok, warning, error };
  Level level = Level::ok;
  std::string topic;  // "Kubernetes", "webhooks", "sidecars", ...
  std::string text;
  std::string remedy = {};  // empty where all is well
};
std::string_view name_of(Finding::Level level);

// Before the installation: whether it would work.
std::vector<Finding> findings_before(const ClusterFacts& facts);
// After it: whether it works, and what of the mesh does not.
std::vector<Finding> findings_after(const ClusterFacts& facts);

// The parts of both; each adds its findings.
void add_platform(const ClusterFacts& facts, std::vector<Finding>& out);  // versions of Kubernetes
void add_versions(const ClusterFacts& facts, std::vector<Finding>& out);  // of postern-control and posternctl
void add_permissions(const ClusterFacts& facts, bool pre, std::vector<Finding>& out);
void add_control_plane(const ClusterFacts& facts, std::vector<Finding>& out);  // Deployment, replicas, built-in CA
void add_webhooks(const ClusterFacts& facts, std::vector<Finding>& out);       // configurations, certificates, dry run
void add_pod_security(const ClusterFacts& facts, std::vector<Finding>& out);   // namespaces that refuse NET_ADMIN
void add_sidecars(const ClusterFacts& facts, std::vector<Finding>& out);       // missing, of another version, behind, without a stream
void add_policies(const ClusterFacts& facts, std::vector<Finding>& out);       // in force
void add_egress(const ClusterFacts& facts, std::vector<Finding>& out);         // isolated from the control plane

}  // namespace postern::cli
