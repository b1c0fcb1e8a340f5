#include "cli/cluster_facts.hpp"

#include <algorithm>

#include "base/document_writer.hpp"
#include "cli/node_path.hpp"
#include "cli/sidecar_report.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view health_port = "15011";
constexpr std::string_view sidecar_health_port = "15020";
// More sidecars without a stream than this have one cause, which a few of them show.
constexpr std::size_t most_asked = 10;

// What an installation makes, and what this check reads.
std::vector<Permission> permissions_for(const std::string& ns, bool pre) {
  const std::string rbac = "rbac.authorization.k8s.io";
  const std::string admission = "admissionregistration.k8s.io";
  if (pre) {
    std::vector<Permission> out{{"create", "", "namespaces", "", false},
                                {"create", rbac, "clusterroles", "", false},
                                {"create", rbac, "clusterrolebindings", "", false},
                                {"create", admission, "mutatingwebhookconfigurations", "", false},
                                {"create", admission, "validatingwebhookconfigurations", "", false},
                                {"create", rbac, "roles", ns, false},
                                {"create", rbac, "rolebindings", ns, false},
                                {"create", "apps", "deployments", ns, false},
                                {"create", "networking.k8s.io", "networkpolicies", ns, false}};
    for (const char* resource : {"serviceaccounts", "configmaps", "services", "secrets"})
      out.push_back({"create", "", resource, ns, false});
    return out;
  }
  return {{"list", "", "pods", "", false},
          {"list", "", "namespaces", "", false},
          {"list", "", "nodes", "", false},
          {"list", "networking.k8s.io", "networkpolicies", "", false},
          {"get", admission, "mutatingwebhookconfigurations", "", false},
          {"get", admission, "validatingwebhookconfigurations", "", false},
          {"get", "", "configmaps", ns, false},
          {"get", "apps", "deployments", ns, false},
          {"get", "", "pods/proxy", ns, false}};
}

// The objects that the chart names are the only ones of their kind which a careful role gives.
std::string object_asked(const Permission& permission) {
  if (permission.verb != "get") return {};
  if (permission.group == "admissionregistration.k8s.io") return "postern";
  return permission.resource == "configmaps" || permission.resource == "deployments" ? "postern-control" : "";
}

void review(ClusterApi& api, Permission& permission) {
  const auto slash = permission.resource.find('/');
  Node attributes = make_object({{"verb", make_text(permission.verb)},
                                 {"group", make_text(permission.group)},
                                 {"resource", make_text(permission.resource.substr(0, slash))}});
  if (slash != std::string::npos) field_of(attributes, "subresource") = make_text(permission.resource.substr(slash + 1));
  if (!permission.ns.empty()) field_of(attributes, "namespace") = make_text(permission.ns);
  if (const std::string name = object_asked(permission); !name.empty()) field_of(attributes, "name") = make_text(name);
  const Node body = make_object({{"apiVersion", make_text("authorization.k8s.io/v1")},
                                 {"kind", make_text("SelfSubjectAccessReview")},
                                 {"spec", make_object({{"resourceAttributes", std::move(attributes)}})}});
  const auto reply = api.ask_create("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json_text(body));
  permission.allowed = reply && reply->ok() && node_at(reply->body, {"status", "allowed"}).boolean;
}

// A namespace in which pods are injected; else one in which a pod can ask for it.
void dry_run(ClusterApi& api, ClusterFacts& facts) {
  facts.dry_run_namespace = "default";
  bool labelled = false;
  if (facts.namespaces) {
    for (const Node& ns : *facts.namespaces) {
      if (labelled || text_at(ns, {"metadata", "labels", "postern.dev/inject"}) != "enabled") continue;
      labelled = true;
      facts.dry_run_namespace = text_at(ns, {"metadata", "name"});
    }
  }
  Node metadata = make_object({{"generateName", make_text("postern-check-")}});
  if (!labelled) field_of(metadata, "labels") = make_object({{"postern.dev/inject", make_text("enabled")}});
  const Node container = make_object({{"name", make_text("check")}, {"image", make_text("postern-check")}});
  const Node spec = make_object({{"serviceAccountName", make_text("default")}, {"containers", make_list({container})}});
  const Node pod =
      make_object({{"apiVersion", make_text("v1")}, {"kind", make_text("Pod")}, {"metadata", std::move(metadata)}, {"spec", spec}});
  facts.dry_run = api.ask_create("/api/v1/namespaces/" + facts.dry_run_namespace + "/pods?dryRun=All", json_text(pod));
}

bool is_replica(const Node& pod, const std::string& ns) {
  return text_at(pod, {"metadata", "namespace"}) == ns && text_at(pod, {"metadata", "labels", "app.kubernetes.io/name"}) == "postern" &&
         text_at(pod, {"metadata", "labels", "app.kubernetes.io/component"}) == "control" && text_at(pod, {"status", "phase"}) == "Running";
}

void ask_replica(ClusterApi& api, ClusterFacts& facts, const std::string& pod) {
  ReplicaFacts& replica = facts.replicas.emplace_back();
  replica.pod = pod;
  const std::string base = "/api/v1/namespaces/" + facts.mesh_namespace + "/pods/" + pod + ":" + std::string(health_port) + "/proxy";
  const auto ask = [&](std::string_view path) -> Node {
    auto reply = api.ask_get(base + std::string(path));
    if (reply && (reply->ok() || reply->status == 404)) return reply->ok() ? std::move(reply->body) : Node{};
    if (replica.problem.empty())
      replica.problem =
          reply ? "answered " + std::to_string(reply->status) + " " + text_at(reply->body, {"message"}) : reply.error().text();
    return {};
  };
  replica.streams = ask("/streams");
  replica.authority = ask("/ca");
  const Node policies = ask("/policies");
  const Node unconnected = ask("/unconnected");
  if (!replica.problem.empty()) return;
  auto added = add_answer(facts.report, json_text(policies));
  if (added) added = add_unconnected(facts.report, json_text(unconnected));
  if (!added) replica.problem = added.error().text();
}

// The sidecars that the control plane cannot speak for.
void ask_sidecars(ClusterApi& api, ClusterFacts& facts) {
  if (!facts.pods || facts.report.replicas == 0) return;
  for (const SidecarReport& sidecar : sidecars_of(facts)) {
    if (sidecar.connected || facts.policy_ages.size() == most_asked) continue;
    const auto slash = sidecar.pod.find('/');
    const auto metrics = api.get_text("/api/v1/namespaces/" + sidecar.pod.substr(0, slash) + "/pods/" + sidecar.pod.substr(slash + 1) +
                                      ":" + std::string(sidecar_health_port) + "/proxy/metrics");
    Result<double> age = Error{"it has no policies yet", {}};
    if (!metrics) {
      age = metrics.error();
    } else if (const auto value = gauge_in(*metrics, "postern_policy_age_seconds")) {
      age = *value;
    }
    facts.policy_ages.emplace(sidecar.pod, std::move(age));
  }
}

}  // namespace

ClusterFacts gather_facts(ClusterApi& api, const std::string& mesh_namespace, bool pre) {
  ClusterFacts facts;
  facts.mesh_namespace = mesh_namespace;
  facts.now = std::chrono::system_clock::now();
  facts.version = api.get("/version");
  if (!facts.version) return facts;
  facts.permissions = permissions_for(mesh_namespace, pre);
  for (Permission& permission : facts.permissions) review(api, permission);
  facts.nodes = api.list("/api/v1/nodes", "v1", "Node");
  facts.namespaces = api.list("/api/v1/namespaces", "v1", "Namespace");
  facts.pods = api.list("/api/v1/pods", "v1", "Pod");
  facts.policies = api.list("/apis/networking.k8s.io/v1/networkpolicies", "networking.k8s.io/v1", "NetworkPolicy");
  if (pre) return facts;
  const std::string admission = "/apis/admissionregistration.k8s.io/v1/";
  facts.mutating = api.get(admission + "mutatingwebhookconfigurations/postern");
  facts.validating = api.get(admission + "validatingwebhookconfigurations/postern");
  facts.settings = api.get("/api/v1/namespaces/" + mesh_namespace + "/configmaps/postern-control");
  facts.deployment = api.get("/apis/apps/v1/namespaces/" + mesh_namespace + "/deployments/postern-control");
  dry_run(api, facts);
  if (facts.pods) {
    for (const Node& pod : *facts.pods)
      if (is_replica(pod, mesh_namespace)) ask_replica(api, facts, text_at(pod, {"metadata", "name"}));
  }
  ask_sidecars(api, facts);
  return facts;
}

}  // namespace postern::cli
