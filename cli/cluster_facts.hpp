// ClusterFacts: what a cluster and the control plane in it say, as far as they could be asked. What it means: cluster_findings.hpp.
#pragma once

#include <chrono>
#include <map>
#include <string>
#include <vector>

#include "base/document.hpp"
#include "base/result.hpp"
#include "cli/cluster_api.hpp"
#include "cli/policy_report.hpp"

namespace postern::cli {

// One SelfSubjectAccessReview (authorization.k8s.io/v1).
struct Permission {
  std::string verb;
  std::string group;
  std::string resource;  // with its subresource: pods/proxy
  std::string ns;        // empty: of the cluster
  bool allowed = false;
};

// One pod of postern-control, asked through the API server.
struct ReplicaFacts {
  std::string pod;
  std::string problem;  // why it could not be asked; empty: it answered
  Node streams;         // GET /streams
  Node authority;       // GET /ca; null where it has none
};

struct ClusterFacts {
  std::string mesh_namespace;
  std::chrono::system_clock::time_point now;

  Result<Node> version = Error{};  // GET /version
  std::vector<Permission> permissions;
  Result<std::vector<Node>> nodes = Error{};
  Result<std::vector<Node>> namespaces = Error{};
  Result<std::vector<Node>> pods = Error{};
  Result<std::vector<Node>> policies = Error{};

  // After the installation only.
  Result<Node> mutating = Error{};  // the webhook configurations "postern"
  Result<Node> validating = Error{};
  Result<Node> settings = Error{};    // the ConfigMap postern-control
  Result<Node> deployment = Error{};  // postern-control
  std::string dry_run_namespace;
  Result<ApiReply> dry_run = Error{};  // a pod that should be injected, made and not kept
  std::vector<ReplicaFacts> replicas;
  Report report;  // of all replicas together
  // Of injected pods without a stream, some of them: seconds since the control plane confirmed their policies, by the sidecar's own word.
  std::map<std::string, Result<double>> policy_ages;
};

// Asks everything. Nothing is changed: the one pod that is made is a dry run. Never fails: what could not be asked holds its Error.
ClusterFacts gather_facts(ClusterApi& api, const std::string& mesh_namespace, bool pre);

}  // namespace postern::cli
