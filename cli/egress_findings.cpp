// Findings about NetworkPolicies that cut sidecars off, as a network plugin that enforces them sees them.
#include <algorithm>
#include <initializer_list>
#include <map>
#include <set>
#include <span>

#include "authz/compiler.hpp"
#include "authz/explain.hpp"
#include "authz/manifests.hpp"
#include "authz/topology.hpp"
#include "base/document_writer.hpp"
#include "cli/cluster_findings.hpp"
#include "cli/control_check.hpp"
#include "cli/finding_parts.hpp"
#include "cli/node_path.hpp"

namespace postern::cli {
namespace {

using Level = Finding::Level;

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

// Those of a namespace with these labels that have addresses of their own.
std::vector<ObjectKey> pods_with(const ClusterView& view, const std::string& ns, const Labels& labels) {
  std::vector<ObjectKey> out;
  for (const auto& [key, pod] : view.pods) {
    if (key.ns == ns && !pod.ended() && !pod.workload.addresses.empty() && matches(LabelSelector{labels, {}}, pod.labels))
      out.push_back(key);
  }
  return out;
}

// The pods of postern-control; before the installation, one as it will be.
std::vector<ObjectKey> control_pods(ClusterView& view, const std::string& ns) {
  const Labels labels{{"app.kubernetes.io/name", "postern"}, {"app.kubernetes.io/component", "control"}};
  if (std::vector<ObjectKey> found = pods_with(view, ns, labels); !found.empty()) return found;
  const ObjectKey key{ns, "postern-control"};
  view.pods.emplace(key, pod_named(ns, key.name, labels));
  return {key};
}

// The cluster's DNS servers, by the label that they have everywhere; none where they are no pods, or on their node's network.
std::vector<ObjectKey> dns_pods(const ClusterView& view) {
  std::vector<ObjectKey> out = pods_with(view, "kube-system", {{"k8s-app", "kube-dns"}});
  std::erase_if(out, [&](const ObjectKey& key) { return view.pods.at(key).workload.host_network; });
  return out;
}

// Rules for UDP as if they were for TCP, which is all that the compiler knows; those for other protocols go.
ClusterView with_udp_for_tcp(ClusterView view) {
  for (auto& [key, policy] : view.policies) {
    std::erase_if(policy.egress, [](PolicyRule& rule) {
      if (rule.ports.empty()) return false;  // any port, of any protocol
      std::erase_if(rule.ports, [](const PolicyPort& port) { return port.protocol != Protocol::udp; });
      for (PolicyPort& port : rule.ports) port.protocol = Protocol::tcp;
      return rule.ports.empty();
    });
  }
  return view;
}

struct CutOff {
  std::set<std::string> pods;
  bool some_has_no_stream = false;
};
using CutOffs = std::map<std::pair<std::string, std::set<std::string>>, CutOff>;  // by namespace and isolating policies

// Of the sources, those that do not reach any target at each of the ports.
CutOffs cut_off(const ClusterFacts& facts, const ClusterView& view, const std::vector<ObjectKey>& sources,
                const std::vector<ObjectKey>& targets, std::initializer_list<Port> ports) {
  CutOffs out;
  Compiler compiler(view, MeshSettings{});
  for (const ObjectKey& key : sources) {
    const auto snapshot = compiler.compile(key, 1);
    if (!snapshot) continue;
    const auto reaches = [&](Port port) {
      return std::any_of(targets.begin(), targets.end(), [&](const ObjectKey& target) {
        const Peer peer{.workload = compiler.topology()->find(target.ns, target.name),
                        .address = view.pods.at(target).workload.addresses.front()};
        return explain(**snapshot, PolicyDirection::egress, peer, port).verdict.allowed();
      });
    };
    if (std::all_of(ports.begin(), ports.end(), reaches)) continue;
    const Peer peer{.workload = nullptr, .address = view.pods.at(targets.front()).workload.addresses.front()};
    std::set<std::string> isolating;
    for (const IsolatingPolicy& one : explain(**snapshot, PolicyDirection::egress, peer, *ports.begin()).isolating)
      isolating.insert(one.policy);
    CutOff& group = out[{key.ns, isolating}];
    group.pods.insert(key.name);
    if (facts.report.unconnected && facts.report.unconnected->contains(key.text())) group.some_has_no_stream = true;
  }
  return out;
}

// The pods that have, or would have, a sidecar; and of every namespace that is injected one that is not there yet.
std::vector<ObjectKey> sources_in(const ClusterFacts& facts, ClusterView& view) {
  const std::set<std::string> labelled = labelled_namespaces(facts);
  const std::string newcomer = "(a pod without labels)";
  std::vector<ObjectKey> out;
  for (const Node& pod : *facts.pods) {
    const ObjectKey key{text_at(pod, {"metadata", "namespace"}), text_at(pod, {"metadata", "name"})};
    if (key.ns != facts.mesh_namespace && view.pods.contains(key) && (is_injected(pod) || should_be_injected(pod, labelled)) && runs(pod))
      out.push_back(key);
  }
  for (const std::string& ns : labelled) {
    if (ns == facts.mesh_namespace) continue;
    const ObjectKey key{ns, newcomer};
    view.pods.emplace(key, pod_named(ns, newcomer, {}));
    out.push_back(key);
  }
  return out;
}

}  // namespace

void add_egress(const ClusterFacts& facts, std::vector<Finding>& out) {
  if (!facts.pods || !facts.policies || !facts.namespaces) {
    out.push_back({Level::warning, "egress",
                   "whether a policy keeps sidecars from postern-control is not known: pods, namespaces or policies could not be read",
                   "see permissions"});
    return;
  }
  const std::size_t before = out.size();
  ClusterView view = view_of(facts, out);
  const std::vector<ObjectKey> sources = sources_in(facts, view);
  const std::vector<ObjectKey> targets = control_pods(view, facts.mesh_namespace);
  const auto tell = [&](const CutOffs& cut_offs, const std::string& from, const std::string& what) {
    for (const auto& [where, group] : cut_offs) {
      out.push_back({group.some_has_no_stream ? Level::error : Level::warning, "egress",
                     "a network plugin that enforces NetworkPolicies cuts sidecars of " + where.first + " off from " + from +
                         ": no egress rule of " + named(where.second) + " lets them reach " + what + "; concerned: " + named(group.pods),
                     egress_policy(where.first, facts.mesh_namespace, {"15010", "15012"})});
    }
  };
  tell(cut_off(facts, view, sources, targets, {Port{15010}, Port{15012}}), "postern-control", "its ports 15010 and 15012");
  // Its name has to be resolved, too.
  if (const std::vector<ObjectKey> dns = dns_pods(view); !dns.empty())
    tell(cut_off(facts, with_udp_for_tcp(view), sources, dns, {Port{53}}), "the cluster's DNS", "its UDP port 53");
  if (out.size() == before)
    out.push_back({Level::ok, "egress", "no policy keeps a sidecar from postern-control, or from the cluster's DNS where it has one"});
}

}  // namespace postern::cli
