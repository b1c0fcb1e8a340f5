// Manifests of any kind: what is accepted keeps the rules that the engine takes for granted.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "authz/manifests.hpp"
#include "authz/service_record.hpp"

namespace {

using namespace postern;

void require(bool ok) {
  if (!ok) std::abort();
}

void check(const LabelSelector& selector) {
  for (const auto& [key, value] : selector.match_labels) require(label_key_faults(key).empty() && label_value_faults(value).empty());
  for (const SelectorRequirement& one : selector.match_expressions) {
    require(label_key_faults(one.key).empty());
    const bool takes_values = one.op == SelectorOperator::in || one.op == SelectorOperator::not_in;
    require(takes_values != one.values.empty());
  }
}

void check(const PolicyRule& rule) {
  for (const PolicyPort& port : rule.ports) {
    require(!port.port || port.port->number != 0);
    require(port.name.empty() || (!port.port && !port.end_port && port_name_faults(port.name).empty()));
    require(!port.end_port || (port.port && *port.port <= *port.end_port));
  }
  for (const PolicyPeer& peer : rule.peers) {
    require(peer.ip_block.has_value() != (peer.pod_selector || peer.namespace_selector));
    if (peer.pod_selector) check(*peer.pod_selector);
    if (peer.namespace_selector) check(*peer.namespace_selector);
    if (!peer.ip_block) continue;
    for (const Cidr& except : peer.ip_block->except) require(peer.ip_block->cidr.contains(except));
  }
}

void check(const ClusterView& cluster) {
  for (const auto& [key, policy] : cluster.policies) {
    require(key == ObjectKey{policy.ns, policy.name} && dns_label_faults(key.ns).empty() && dns_subdomain_faults(key.name).empty());
    require(cluster.namespaces.count(key.ns) == 1);
    check(policy.pod_selector);
    for (const PolicyRule& rule : policy.ingress) check(rule);
    for (const PolicyRule& rule : policy.egress) check(rule);
  }
  for (const auto& [key, pod] : cluster.pods) {
    require(key == ObjectKey{pod.workload.ns, pod.workload.name} && dns_label_faults(key.ns).empty() &&
            dns_subdomain_faults(key.name).empty());
    require(cluster.namespaces.count(key.ns) == 1 && !pod.workload.service_account.empty());
    for (const NamedPort& port : pod.workload.named_ports) require(port.port.number != 0 && port_name_faults(port.name).empty());
    for (const ProbePort& probe : pod.workload.probe_ports) require(probe.port.number != 0);
  }
  for (const auto& [key, slice] : cluster.endpoint_slices) {
    require(key == ObjectKey{slice.ns, slice.name});
    for (const SlicePort& port : slice.ports) require(port.port.number != 0);
    for (const SliceEndpoint& endpoint : slice.endpoints) require(!endpoint.addresses.empty());
  }
  for (const ServiceRecord& service : resolve_services(cluster)) {
    for (const ServiceRecordPort& port : service.ports) {
      for (const IpFamily family : {IpFamily::v4, IpFamily::v6}) {
        for (const ServiceEndpoint& endpoint : port.of(family)) require(endpoint.address.address.family() == family);
      }
    }
  }
  for (const auto& [name, ns] : cluster.namespaces) require(ns.name == name && ns.labels.at("kubernetes.io/metadata.name") == name);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto documents = parse_yaml(text, "f", {.bytes = 64 << 10, .nodes = 4000, .depth = 32, .documents = 50, .scalar_bytes = 4096});
  if (!documents) return 0;
  const auto manifests = decode_manifests(*documents);
  if (manifests) {
    check(manifests->cluster);
  } else if (manifests.error().message.empty() || manifests.error().where.empty()) {
    std::abort();
  }
  return 0;
}
