// Findings about namespaces, pods, their sidecars and policies.
#include <algorithm>
#include <map>
#include <set>

#include "cli/cluster_findings.hpp"
#include "cli/finding_parts.hpp"
#include "cli/node_path.hpp"
#include "cli/sidecar_report.hpp"

namespace postern::cli {
namespace {

using Level = Finding::Level;

constexpr std::string_view pod_security = "pod-security.kubernetes.io/enforce";
constexpr std::string_view restart = "make them anew: kubectl -n NAMESPACE rollout restart deployment";
constexpr std::string_view read_log = "its log says why: kubectl -n NAMESPACE logs POD -c postern-proxy";
// An update takes milliseconds; one this old, in seconds, has been lost or is not taken.
constexpr std::int64_t long_behind = 10;

// What the chart injects; empty where its settings cannot be read.
std::string image_now(const ClusterFacts& facts) {
  if (!facts.settings) return {};
  const auto settings = parse_yaml(text_at(*facts.settings, {"data", "injection.yaml"}), "injection.yaml");
  return settings && !settings->empty() ? text_at(settings->front().root, {"image"}) : std::string();
}

void look_at_missing(const ClusterFacts& facts, std::vector<Finding>& out) {
  const std::set<std::string> labelled = labelled_namespaces(facts);
  std::set<std::string> without;
  for (const Node& pod : *facts.pods) {
    if (!runs(pod) || is_injected(pod) || text_at(pod, {"metadata", "namespace"}) == facts.mesh_namespace) continue;
    if (should_be_injected(pod, labelled)) without.insert(key_of(pod));
  }
  if (without.empty()) return;
  out.push_back({Level::error, "sidecars",
                 std::to_string(without.size()) + " pod(s) should have a sidecar and have none: " + named(without), std::string(restart)});
}

void look_at_versions(const std::vector<SidecarReport>& sidecars, const std::string& image, const std::string& version,
                      std::vector<Finding>& out) {
  std::map<std::string, std::set<std::string>> of_another_image;
  std::map<std::string, std::set<std::string>> of_another_version;
  for (const SidecarReport& one : sidecars) {
    if (!image.empty() && one.image != image) of_another_image[one.image].insert(one.pod);
    if (!version.empty() && one.connected && one.version != version) of_another_version[one.version].insert(one.pod);
  }
  for (const auto& [its, pods] : of_another_image) {
    out.push_back({Level::warning, "sidecars",
                   std::to_string(pods.size()) + " pod(s) have the sidecar " + (its.empty() ? "(none by its name)" : its) + ", and " +
                       image + " is injected now: " + named(pods),
                   std::string(restart)});
  }
  for (const auto& [its, pods] : of_another_version) {
    out.push_back(
        {Level::warning, "sidecars",
         std::to_string(pods.size()) + " sidecar(s) are of version " + its + ", and postern-control of " + version + ": " + named(pods),
         std::string(restart)});
  }
}

void look_at_streams(const ClusterFacts& facts, const std::vector<SidecarReport>& sidecars, std::vector<Finding>& out) {
  std::set<std::string> behind;
  std::map<std::string, std::string> disconnected;  // what is known of its policies
  for (const SidecarReport& one : sidecars) {
    if (!one.connected) disconnected[one.pod] = one.policy_age ? "confirmed " + std::to_string(*one.policy_age) + " s ago" : one.reason;
    const std::string age = std::to_string(one.policy_age.value_or(0)) + " s";
    if (one.state == "refused") behind.insert(one.pod + " (refused " + age + " ago: " + one.reason + ")");
    if (one.state == "waiting") behind.insert(one.pod + " (" + one.reason + ")");
    if (one.state == "behind" && *one.policy_age >= long_behind) behind.insert(one.pod + " (" + age + ")");
  }
  if (!behind.empty()) {
    out.push_back({Level::error, "sidecars",
                   std::to_string(behind.size()) + " sidecar(s) do not enforce the newest policies: " + named(behind),
                   std::string(read_log)});
  }
  if (facts.report.replicas == 0 || !facts.report.unconnected || facts.report.unconnected->empty()) return;
  std::set<std::string> alone;
  for (const std::string& pod : *facts.report.unconnected) {
    const auto known = disconnected.find(pod);
    alone.insert(known == disconnected.end() || known->second.empty() ? pod : pod + " (" + known->second + ")");
  }
  out.push_back({Level::error, "sidecars",
                 std::to_string(alone.size()) +
                     " sidecar(s) have no stream to the control plane, and enforce the last policies they had: " + named(alone),
                 std::string(read_log)});
}

}  // namespace

void add_pod_security(const ClusterFacts& facts, std::vector<Finding>& out) {
  if (!facts.namespaces) {
    out.push_back(
        {Level::warning, "namespaces", "namespaces could not be looked at: " + facts.namespaces.error().text(), "see permissions"});
    return;
  }
  const std::set<std::string> labelled = labelled_namespaces(facts);
  bool any = false;
  for (const Node& ns : *facts.namespaces) {
    const std::string level = text_at(ns, {"metadata", "labels", pod_security});
    const std::string name = text_at(ns, {"metadata", "name"});
    if ((level != "baseline" && level != "restricted") || !labelled.contains(name)) continue;
    any = true;
    out.push_back({Level::error, "namespaces",
                   "the Pod Security level of " + name + " is " + level +
                       ": it refuses the NET_ADMIN of postern-redirect, and with it every injected pod",
                   "kubectl label --overwrite namespace " + name + " " + std::string(pod_security) +
                       "=privileged, and limit pods otherwise; a CNI plugin that needs no NET_ADMIN is on the roadmap"});
  }
  if (any) return;
  out.push_back({Level::ok, "namespaces",
                 labelled.empty() ? "no namespace is labelled postern.dev/inject=enabled yet"
                                  : "no Pod Security level keeps pods out of " + named(labelled)});
}

void add_sidecars(const ClusterFacts& facts, std::vector<Finding>& out) {
  if (!facts.pods) {
    out.push_back({Level::warning, "sidecars", "pods could not be looked at: " + facts.pods.error().text(), "see permissions"});
    return;
  }
  const std::size_t before = out.size();
  const std::vector<SidecarReport> sidecars = sidecars_of(facts);
  const std::string image = image_now(facts);
  const std::string version = control_version(facts);
  look_at_missing(facts, out);
  look_at_versions(sidecars, image, version, out);
  look_at_streams(facts, sidecars, out);
  if (out.size() != before) return;
  std::string text = std::to_string(sidecars.size()) + " pod(s) have a sidecar";
  if (!sidecars.empty()) {
    if (!image.empty()) text += ", all of them " + image;
    if (!version.empty()) text += ", of version " + version + " as postern-control, with the newest policies";
  }
  out.push_back({Level::ok, "sidecars", text});
}

void add_policies(const ClusterFacts& facts, std::vector<Finding>& out) {
  if (facts.report.replicas == 0) {
    out.push_back(
        {Level::warning, "policies", "whether policies are in force is not known: no replica could be asked", "see control plane"});
    return;
  }
  const std::vector<std::string> missing = missing_of(facts.report, Question{});
  for (const std::string& one : missing)
    out.push_back(
        {Level::error, "policies", one, "posternctl status --wait says when; a sidecar that refuses an update says why in its log"});
  if (missing.empty())
    out.push_back({Level::ok, "policies",
                   std::to_string(facts.report.policies.size()) + " policies are in force on every pod with a sidecar that they select"});
}

}  // namespace postern::cli
