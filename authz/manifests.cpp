#include "authz/manifests.hpp"

#include <array>
#include <map>
#include <string>
#include <utility>

#include "authz/decode_endpoint_slice.hpp"
#include "authz/decode_namespace.hpp"
#include "authz/decode_network_policy.hpp"
#include "authz/decode_pod.hpp"
#include "authz/decode_service.hpp"

namespace postern {
namespace {

constexpr std::string_view kPolicyGroup = "networking.k8s.io";
// Everything that Kubernetes has in that group: another kind is a slip, and its policy would silently be missing.
constexpr std::array<std::string_view, 5> kPolicyGroupKinds = {"NetworkPolicy", "Ingress", "IngressClass", "IPAddress", "ServiceCIDR"};
// Policies that decide traffic elsewhere and that we do not read.
constexpr std::array<std::string_view, 8> kOtherPolicyKinds = {
    "AdminNetworkPolicy",  "BaselineAdminNetworkPolicy",     "ClusterNetworkPolicy", "GlobalNetworkPolicy",
    "CiliumNetworkPolicy", "CiliumClusterwideNetworkPolicy", "AuthorizationPolicy",  "StagedNetworkPolicy"};

template <std::size_t N>
bool one_of(const std::array<std::string_view, N>& names, std::string_view name) {
  for (const std::string_view one : names) {
    if (one == name) return true;
  }
  return false;
}

std::string_view group_of(std::string_view api_version) {
  const std::size_t slash = api_version.find('/');
  return slash == std::string_view::npos ? std::string_view() : api_version.substr(0, slash);
}

class Reader {
 public:
  void read(const Document& document) {
    decoding_.set_source(document.source);
    read_object(Field(decoding_, document.root), {}, {});
  }

  Result<Manifests> finish() {
    if (!decoding_.ok()) return decoding_.error();
    add_missing_namespaces();
    check_replaced();
    out_.warnings = std::move(decoding_.warnings());
    return std::move(out_);
  }

 private:
  // `list_version` and `list_kind` are what the items of a typed list (PodList) take for granted.
  void read_object(const Field& object, std::string_view list_version, std::string_view list_kind) {
    if (!object.present()) return;
    if (!object.node().is(Node::Kind::mapping))
      return object.refuse("expected a Kubernetes object, found " + std::string(name_of(object.node().kind)));
    const std::string version = object["apiVersion"].string(list_version);
    const std::string kind = object["kind"].string(list_kind);
    if (version.empty()) object["apiVersion"].refuse("Required value: such as \"networking.k8s.io/v1\"");
    if (kind.empty()) object["kind"].refuse("Required value: such as \"NetworkPolicy\"");
    if (version.empty() || kind.empty()) return;
    const std::string_view group = group_of(version);
    if (kind.ends_with("List") && object["items"].present()) {
      const std::string item_kind = kind.substr(0, kind.size() - 4);
      for (const Field& item : object["items"].items()) {
        read_object(item, item_kind.empty() ? std::string_view() : version, item_kind);
      }
    } else if (group == kPolicyGroup || (group == "extensions" && kind == "NetworkPolicy")) {
      read_policy(object, version, kind);
    } else if (group.empty()) {
      read_core(object, version, kind);
    } else if (group == "discovery.k8s.io" && kind == "EndpointSlice") {
      read_slice(object, version);
    } else if (kind == "NetworkPolicy" || one_of(kOtherPolicyKinds, kind)) {
      object.warn("this " + kind + " of " + shown(version) +
                  " is not read and decides nothing here; only NetworkPolicy of networking.k8s.io/v1 does");
    }
  }

  void read_policy(const Field& object, std::string_view version, std::string_view kind) {
    if (!one_of(kPolicyGroupKinds, kind))
      return object["kind"].refuse("no kind " + shown(kind) + " in networking.k8s.io; expected NetworkPolicy");
    if (kind != "NetworkPolicy") return;
    if (version != "networking.k8s.io/v1") return object["apiVersion"].refuse("expected networking.k8s.io/v1, found " + shown(version));
    NetworkPolicy policy = decode_network_policy(object);
    const ObjectKey key{policy.ns, policy.name};
    if (!is_new(object, "NetworkPolicy", key.text())) return;
    if (!policy.replaces.empty()) {
      const Field annotation = object["metadata"]["annotations"]["postern.dev/replaces"];
      replacing_.emplace(key, decoding_.where(annotation.line(), "metadata.annotations[postern.dev/replaces]"));
    }
    out_.cluster.policies.emplace(key, std::move(policy));
  }

  void read_slice(const Field& object, std::string_view version) {
    if (version != "discovery.k8s.io/v1") return object["apiVersion"].refuse("expected discovery.k8s.io/v1, found " + shown(version));
    EndpointSlice slice = decode_endpoint_slice(object);
    const ObjectKey key{slice.ns, slice.name};
    if (is_new(object, "EndpointSlice", key.text())) out_.cluster.endpoint_slices.emplace(key, std::move(slice));
  }

  void read_core(const Field& object, std::string_view version, std::string_view kind) {
    const bool ours = kind == "Namespace" || kind == "Pod" || kind == "Service" || kind == "Node";
    if (kind == "NetworkPolicy") return object["apiVersion"].refuse("expected networking.k8s.io/v1, found " + shown(version));
    if (!ours) return;
    if (version != "v1") return object["apiVersion"].refuse("expected v1, found " + shown(version));
    if (kind == "Namespace") {
      Namespace ns = decode_namespace(object);
      const std::string name = ns.name;
      if (is_new(object, kind, name)) out_.cluster.namespaces.emplace(name, std::move(ns));
    } else if (kind == "Pod") {
      Pod pod = decode_pod(object);
      const ObjectKey key{pod.workload.ns, pod.workload.name};
      if (is_new(object, kind, key.text())) out_.cluster.pods.emplace(key, std::move(pod));
    } else if (kind == "Service") {
      Service service = decode_service(object);
      const ObjectKey key{service.ns, service.name};
      if (is_new(object, kind, key.text())) out_.cluster.services.emplace(key, std::move(service));
    } else {
      ClusterNode node = decode_node(object);
      const std::string name = node.name;
      if (is_new(object, kind, name)) out_.cluster.nodes.emplace(name, std::move(node));
    }
  }

  bool is_new(const Field& object, std::string_view kind, const std::string& name) {
    const std::string where = decoding_.where(object.line(), {});
    const auto [first, inserted] = seen_.emplace(std::string(kind) + " " + name, where);
    if (!inserted) object.refuse(first->first + " stands here a second time; the first is at " + first->second + ": remove one of them");
    return inserted;
  }

  // An object's namespace exists, also where nobody wrote it down: the API server would not have stored the object otherwise.
  void add_missing_namespaces() {
    std::map<std::string, std::string> used;
    for (const auto& [key, pod] : out_.cluster.pods) used.emplace(key.ns, "Pod " + key.text());
    for (const auto& [key, policy] : out_.cluster.policies) used.emplace(key.ns, "NetworkPolicy " + key.text());
    for (const auto& [name, user] : used) {
      const auto [ns, inserted] = out_.cluster.namespaces.try_emplace(name);
      if (!inserted) continue;
      ns->second.name = name;
      ns->second.labels.emplace(namespace_name_label, name);
      decoding_.warnings().push_back({seen_.at(user), "there is no manifest of the namespace \"" + name +
                                                          "\"; it is taken to have no labels but " + std::string(namespace_name_label)});
    }
  }

  // What postern.dev/replaces names need not exist: the old policy may be deleted before the annotation is.
  void check_replaced() {
    for (const auto& [key, where] : replacing_) {
      const NetworkPolicy& policy = out_.cluster.policies.at(key);
      const bool audit =
          policy.mode.value_or(out_.cluster.namespaces.at(key.ns).mode.value_or(EnforcementMode::enforce)) == EnforcementMode::audit;
      for (const std::string& name : policy.replaces) {
        if (!out_.cluster.policies.contains({key.ns, name})) {
          decoding_.warnings().push_back({where, "there is no NetworkPolicy " + shown(name) + " in namespace " + shown(key.ns)});
        } else if (!audit) {  // mesh.audit is not known here
          decoding_.warnings().push_back({where, "means something only in audit: with both policies in force they add up; delete " +
                                                     shown(name) + " for this one to replace it"});
        }
      }
    }
  }

  Decoding decoding_{std::string()};
  Manifests out_;
  std::map<std::string, std::string> seen_;     // kind and name -> where
  std::map<ObjectKey, std::string> replacing_;  // policies with postern.dev/replaces -> where
};

}  // namespace

Result<Manifests> decode_manifests(std::span<const Document> documents) {
  Reader reader;
  for (const Document& document : documents) reader.read(document);
  return reader.finish();
}

}  // namespace postern
