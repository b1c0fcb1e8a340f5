// Findings about namespaces, pods and their sidecars.
#include <algorithm>
#include <map>
#include <set>

#include "authz/compiler.hpp"
#include "authz/explain.hpp"
#include "authz/manifests.hpp"
#include "authz/topology.hpp"
#include "base/document_writer.hpp"
#include "cli/cluster_findings.hpp"
#include "cli/control_check.hpp"
#include "cli/node_path.hpp"

namespace postern::cli {
namespace {

using Level = Finding::Level;

constexpr std::string_view pod_security = "pod-security.kubernetes.io/enforce";
constexpr std::size_t most_named = 3;

std::string named(const std::set<std::string>& names) {
  std::string out;
  std::size_t count = 0;
  for (const std::string& name : names) {
    if (count++ == most_named) return out + " and " + std::to_string(names.size() - most_named) + " more";
    out += (out.empty() ? "" : ", ") + name;
  }
  return out;
}

std::string key_of(const Node& pod) { return text_at(pod, {"metadata", "namespace"}) + "/" + text_at(pod, {"metadata", "name"}); }

std::set<std::string> labelled_namespaces(const ClusterFacts& facts) {
  std::set<std::string> out;
  if (!facts.namespaces) return out;
  for (const Node& ns : *facts.namespaces) {
    if (text_at(ns, {"metadata", "labels", "postern.dev/inject"}) == "enabled") out.insert(text_at(ns, {"metadata", "name"}));
  }
  return out;
}

bool has_ended(const Node& pod) {
  const std::string phase = text_at(pod, {"status", "phase"});
  return phase == "Succeeded" || phase == "Failed";
}

bool is_injected(const Node& pod) { return text_at(pod, {"metadata", "annotations", "postern.dev/injected"}) == "true"; }

// As the webhooks choose pods (control/injector.cpp).
bool should_be_injected(const Node& pod, const std::set<std::string>& labelled) {
  const std::string label = text_at(pod, {"metadata", "labels", "postern.dev/inject"});
  if (label == "disabled" || node_at(pod, {"spec", "hostNetwork"}).boolean || text_at(pod, {"spec", "os", "name"}) == "windows")
    return false;
  if (!text_at(pod, {"metadata", "annotations", "kubernetes.io/config.mirror"}).empty()) return false;
  return label == "enabled" || labelled.contains(text_at(pod, {"metadata", "namespace"}));
}

std::string sidecar_image(const Node& pod) {
  for (const Node& container : items_at(pod, {"spec", "initContainers"})) {
    if (text_at(container, {"name"}) == "postern-proxy") return text_at(container, {"image"});
  }
  return {};
}

// What the chart injects; empty where its settings cannot be read.
std::string image_now(const ClusterFacts& facts) {
  if (!facts.settings) return {};
  const auto settings = parse_yaml(text_at(*facts.settings, {"data", "injection.yaml"}), "injection.yaml");
  return settings && !settings->empty() ? text_at(settings->front().root, {"image"}) : std::string();
}

// Pods and policies as the network plugin sees them: our annotations (audit) are nothing to it.
ClusterView view_of(const ClusterFacts& facts, std::vector<Finding>& out) {
  ClusterView view;
  const auto read = [&](const Node& object) -> Result<void> {
    Document document{.source = text_at(object, {"kind"}) + " " + key_of(object), .root = object};
    remove_field(field_of(document.root, "metadata"), "annotations");
    auto manifests = decode_manifests(std::span(&document, 1));
    if (!manifests) return manifests.error();
    view.namespaces.merge(manifests->cluster.namespaces);
    view.pods.merge(manifests->cluster.pods);
    view.policies.merge(manifests->cluster.policies);
    return {};
  };
  for (const auto* objects : {&facts.namespaces, &facts.pods}) {
    if (!*objects) continue;
    for (const Node& object : **objects) (void)read(object);  // a pod that cannot be read has no verdict here
  }
  if (!facts.policies) return view;
  for (const Node& policy : *facts.policies) {
    if (const auto done = read(policy); !done) {
      out.push_back({Level::error, "policies", done.error().text(), "the control plane keeps its last good version: mend the policy"});
    }
  }
  return view;
}

Pod pod_named(std::string ns, std::string name, Labels labels) {
  Pod pod;
  pod.workload.ns = std::move(ns);
  pod.workload.name = std::move(name);
  pod.workload.addresses = {*IpAddress::parse("192.0.2.1")};  // RFC 5737: no pod's
  pod.labels = std::move(labels);
  return pod;
}

// The pods of postern-control; before the installation, one as it will be.
std::vector<ObjectKey> control_pods(ClusterView& view, const std::string& ns) {
  std::vector<ObjectKey> out;
  for (const auto& [key, pod] : view.pods) {
    const auto label = [&](std::string_view name) {
      const auto found = std::find_if(pod.labels.begin(), pod.labels.end(), [&](const auto& one) { return one.first == name; });
      return found == pod.labels.end() ? std::string() : found->second;
    };
    if (key.ns == ns && !pod.ended() && !pod.workload.addresses.empty() && label("app.kubernetes.io/name") == "postern" &&
        label("app.kubernetes.io/component") == "control")
      out.push_back(key);
  }
  if (!out.empty()) return out;
  Labels labels;
  labels.emplace("app.kubernetes.io/name", "postern");
  labels.emplace("app.kubernetes.io/component", "control");
  const ObjectKey key{ns, "postern-control"};
  view.pods.emplace(key, pod_named(ns, key.name, std::move(labels)));
  return {key};
}

struct CutOff {
  std::set<std::string> pods;
  bool some_has_no_stream = false;
};

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
  const std::set<std::string> labelled = labelled_namespaces(facts);
  const std::string image = image_now(facts);
  std::set<std::string> without;
  std::map<std::string, std::set<std::string>> of_another_image;
  std::size_t injected = 0;
  for (const Node& pod : *facts.pods) {
    if (has_ended(pod)) continue;
    if (is_injected(pod)) {
      ++injected;
      if (const std::string its = sidecar_image(pod); !image.empty() && its != image) of_another_image[its].insert(key_of(pod));
    } else if (should_be_injected(pod, labelled) && text_at(pod, {"metadata", "namespace"}) != facts.mesh_namespace) {
      without.insert(key_of(pod));
    }
  }
  if (!without.empty()) {
    out.push_back({Level::error, "sidecars",
                   std::to_string(without.size()) + " pod(s) should have a sidecar and have none: " + named(without),
                   "make them anew: kubectl -n NAMESPACE rollout restart deployment"});
  }
  for (const auto& [its, pods] : of_another_image) {
    out.push_back({Level::warning, "sidecars",
                   std::to_string(pods.size()) + " pod(s) have the sidecar " + (its.empty() ? "(none by its name)" : its) + ", and " +
                       image + " is injected now: " + named(pods),
                   "make them anew: kubectl -n NAMESPACE rollout restart deployment"});
  }
  if (facts.report.replicas > 0 && facts.report.unconnected && !facts.report.unconnected->empty()) {
    out.push_back(
        {Level::error, "sidecars",
         std::to_string(facts.report.unconnected->size()) +
             " sidecar(s) have no stream to the control plane, and enforce the last policies they had: " + named(*facts.report.unconnected),
         "their logs say why: kubectl -n NAMESPACE logs POD -c postern-proxy"});
  }
  if (out.size() == before)
    out.push_back({Level::ok, "sidecars",
                   std::to_string(injected) + " pod(s) have a sidecar" + (image.empty() || injected == 0 ? "" : ", all of them " + image)});
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

void add_egress(const ClusterFacts& facts, std::vector<Finding>& out) {
  if (!facts.pods || !facts.policies || !facts.namespaces) {
    out.push_back({Level::warning, "egress",
                   "whether a policy keeps sidecars from postern-control is not known: pods, namespaces or policies could not be read",
                   "see permissions"});
    return;
  }
  const std::size_t before = out.size();
  ClusterView view = view_of(facts, out);
  const std::set<std::string> labelled = labelled_namespaces(facts);
  const std::string newcomer = "(a pod without labels)";
  std::vector<ObjectKey> sources;
  for (const Node& pod : *facts.pods) {
    const ObjectKey key{text_at(pod, {"metadata", "namespace"}), text_at(pod, {"metadata", "name"})};
    if (view.pods.contains(key) && (is_injected(pod) || should_be_injected(pod, labelled)) && !has_ended(pod)) sources.push_back(key);
  }
  for (const std::string& ns : labelled) {
    const ObjectKey key{ns, newcomer};
    view.pods.emplace(key, pod_named(ns, newcomer, {}));
    sources.push_back(key);
  }
  const std::vector<ObjectKey> targets = control_pods(view, facts.mesh_namespace);
  Compiler compiler(view, MeshSettings{});
  std::map<std::pair<std::string, std::set<std::string>>, CutOff> cut_off;  // by namespace and isolating policies
  for (const ObjectKey& key : sources) {
    if (key.ns == facts.mesh_namespace) continue;
    const auto snapshot = compiler.compile(key, 1);
    if (!snapshot) continue;
    const auto reaches = [&](Port port) {
      return std::any_of(targets.begin(), targets.end(), [&](const ObjectKey& target) {
        const Peer peer{.workload = compiler.topology()->find(target.ns, target.name),
                        .address = view.pods.at(target).workload.addresses.front()};
        return explain(**snapshot, PolicyDirection::egress, peer, port).verdict.allowed();
      });
    };
    if (reaches(Port{15010}) && reaches(Port{15012})) continue;
    const Peer peer{.workload = nullptr, .address = view.pods.at(targets.front()).workload.addresses.front()};
    std::set<std::string> isolating;
    for (const IsolatingPolicy& one : explain(**snapshot, PolicyDirection::egress, peer, Port{15010}).isolating)
      isolating.insert(one.policy);
    CutOff& group = cut_off[{key.ns, isolating}];
    group.pods.insert(key.name);
    if (facts.report.unconnected && facts.report.unconnected->contains(key.text())) group.some_has_no_stream = true;
  }
  for (const auto& [where, group] : cut_off) {
    out.push_back({group.some_has_no_stream ? Level::error : Level::warning, "egress",
                   "a network plugin that enforces NetworkPolicies cuts sidecars of " + where.first +
                       " off from postern-control: no egress rule of " + named(where.second) +
                       " lets them reach its ports 15010 and 15012; concerned: " + named(group.pods),
                   egress_policy(where.first, facts.mesh_namespace, {"15010", "15012"})});
  }
  if (out.size() == before) out.push_back({Level::ok, "egress", "no policy keeps a sidecar from postern-control"});
}

}  // namespace postern::cli
