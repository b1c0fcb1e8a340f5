#include "authz/resource.hpp"

#include "authz/mesh_names.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

template <class Value, std::size_t N>
std::string_view spelled(const std::array<std::pair<std::string_view, Value>, N>& names, Value value) {
  for (const auto& [name, one] : names) {
    if (one == value) return name;
  }
  return names.front().first;
}

// A list field, left out where it is empty. `write(json, item)` writes one value.
template <class Items, class Write>
void list(JsonWriter& json, std::string_view name, const Items& items, const Write& write) {
  if (items.empty()) return;
  json.key(name).begin_array();
  for (const auto& item : items) write(json, item);
  json.end_array();
}

const auto write_text = [](JsonWriter& json, const std::string& text) { json.value(text); };
const auto write_address = [](JsonWriter& json, const IpAddress& address) { json.value(address.text()); };
const auto write_cidr = [](JsonWriter& json, const Cidr& cidr) { json.value(cidr.text()); };
const auto write_key = [](JsonWriter& json, const ObjectKey& key) { json.value(key.text()); };
const auto write_port = [](JsonWriter& json, Port port) { json.value(port.number); };

// As in the API, so that the same decoder reads it.
void write_selector(JsonWriter& json, std::string_view name, const LabelSelector& selector) {
  json.key(name).begin_object();
  if (!selector.match_labels.empty()) {
    json.key("matchLabels").begin_object();
    for (const auto& [key, value] : selector.match_labels) json.field(key, value);
    json.end_object();
  }
  list(json, "matchExpressions", selector.match_expressions, [](JsonWriter& out, const SelectorRequirement& one) {
    out.begin_object().field("key", one.key).field("operator", name_of(one.op));
    list(out, "values", one.values, write_text);
    out.end_object();
  });
  json.end_object();
}

void write_policy_port(JsonWriter& json, const PolicyPort& port) {
  json.begin_object().field("protocol", name_of(port.protocol)).text("port", port.name);
  if (port.port) json.field("port", port.port->number);
  if (port.end_port) json.field("endPort", port.end_port->number);
  json.end_object();
}

void write_peer(JsonWriter& json, const AllowedPeer& peer) {
  json.begin_object();
  if (peer.origin.peer >= 0) json.field("peer", peer.origin.peer);
  if (const auto* listed = std::get_if<SpiffeIdPeer>(&peer.peer)) {
    json.field("spiffeId", listed->id);
  } else if (const auto* set = std::get_if<PeerSetRef>(&peer.peer)) {
    json.field("set", set->index);
  } else if (const auto* block = std::get_if<IpBlock>(&peer.peer)) {
    json.field("cidr", block->cidr.text());
    list(json, "except", block->except, write_cidr);
  }
  json.end_object();
}

void write_rule(JsonWriter& json, const AllowRule& rule) {
  const RuleOrigin& origin = rule.peers.front().origin;
  json.begin_object().field("namespace", origin.ns).field("policy", origin.policy).field("rule", origin.rule);
  json.flag("audit", rule.audit).flag("replaced", rule.replaced);
  list(json, "ports", rule.ports, write_policy_port);
  list(json, "peers", rule.peers, write_peer);
  json.end_object();
}

void write_direction(JsonWriter& json, std::string_view name, const AllowDirection& direction) {
  json.key(name).begin_object();
  list(json, "isolating", direction.isolating, [](JsonWriter& out, const IsolatingPolicy& one) {
    out.begin_object().field("namespace", one.ns).field("policy", one.policy);
    out.flag("audit", one.audit).flag("replaced", one.replaced).end_object();
  });
  if (direction.default_deny) json.field("defaultDeny", name_of(*direction.default_deny));
  list(json, "rules", direction.rules, write_rule);
  json.end_object();
}

void write_endpoint(JsonWriter& json, const ServiceEndpoint& endpoint) {
  json.begin_object().field("address", endpoint.address.address.text()).field("port", endpoint.address.port.number);
  json.text("node", endpoint.node);
  if (endpoint.pod) json.field("pod", endpoint.pod->text());
  json.end_object();
}

}  // namespace

std::string resource_name(const PodRecord& pod) { return pod_resource_name({pod.workload.ns, pod.workload.name}); }
std::string pod_resource_name(const WorkloadKey& key) { return "pod/" + key.text(); }
std::string service_resource_name(const ObjectKey& key) { return "service/" + key.text(); }
std::string peer_set_resource_name(std::string_view id) { return "peer-set/" + std::string(id); }

std::string federated_bundle_resource_name(std::string_view trust_domain) {
  return std::string(federated_bundle_prefix) + std::string(trust_domain);
}

std::string encode(const MeshSettings& settings) {
  JsonWriter json;
  json.begin_object().field("trustDomain", settings.trust_domain.text());
  json.field("defaultPolicy", spelled(default_policy_names, settings.default_policy));
  json.field("nodeTraffic", spelled(node_traffic_names, settings.node_traffic));
  json.field("mtls", name_of(settings.mtls)).flag("audit", settings.audit);
  list(json, "clusterCidrs", settings.cluster_cidrs, write_cidr);
  list(json, "nodeAddresses", settings.node_addresses, write_address);
  if (!settings.denied.empty()) {
    json.key("denied").begin_object();
    list(json, "serials", settings.denied.serials, write_text);
    list(json, "spiffeIds", settings.denied.spiffe_ids, write_text);
    json.end_object();
  }
  return json.end_object().take();
}

std::string encode(const AllowListRecord& record) {
  JsonWriter json;
  json.begin_object();
  list(json, "peerSets", record.peer_sets, write_text);
  list(json, "trustDomains", record.list.trust_domains, write_text);
  write_direction(json, "ingress", record.list.ingress);
  write_direction(json, "egress", record.list.egress);
  return json.end_object().take();
}

std::string encode(const PeerSetRecord& set) {
  JsonWriter json;
  json.begin_object();
  write_selector(json, "namespaceSelector", set.namespaces);
  write_selector(json, "podSelector", set.pods);
  json.flag("wholeNamespaces", set.whole_namespaces);
  list(json, "namespaces", set.namespace_names, write_text);
  list(json, "members", set.members, write_key);
  return json.end_object().take();
}

std::string encode(const PodRecord& pod) {
  const Workload& workload = pod.workload;
  JsonWriter json;
  json.begin_object().field("namespace", workload.ns).field("name", workload.name).text("uid", workload.uid);
  json.field("serviceAccount", workload.service_account);
  list(json, "addresses", workload.addresses, write_address);
  json.flag("meshed", workload.meshed).flag("hostNetwork", workload.host_network).field("mtls", name_of(workload.mtls));
  list(json, "portMtls", workload.port_mtls, [](JsonWriter& out, const std::pair<Port, MtlsMode>& one) {
    out.begin_object().field("port", one.first.number).field("mtls", name_of(one.second)).end_object();
  });
  list(json, "excludedInboundPorts", workload.excluded_inbound_ports, write_port);
  list(json, "excludedOutboundPorts", workload.excluded_outbound_ports, write_port);
  list(json, "namedPorts", workload.named_ports, [](JsonWriter& out, const NamedPort& one) {
    out.begin_object().field("name", one.name).field("protocol", name_of(one.protocol)).field("port", one.port.number).end_object();
  });
  return json.text("node", pod.node_name).flag("terminating", pod.terminating).end_object().take();
}

std::string encode(const ServiceRecord& service) {
  JsonWriter json;
  json.begin_object().field("namespace", service.key.ns).field("name", service.key.name);
  list(json, "clusterIPs", service.cluster_ips, write_address);
  list(json, "addresses", service.other_addresses, write_address);
  json.flag("localOnly", service.local_only).flag("sticky", service.sticky);
  list(json, "ports", service.ports, [](JsonWriter& out, const ServiceRecordPort& port) {
    out.begin_object().field("port", port.port.number);
    if (port.node_port) out.field("nodePort", port.node_port->number);
    list(out, "ipv4", port.endpoints[0], write_endpoint);
    list(out, "ipv6", port.endpoints[1], write_endpoint);
    out.end_object();
  });
  return json.end_object().take();
}

std::string encode_probes(const std::vector<ProbePort>& probes) {
  JsonWriter json;
  json.begin_object();
  list(json, "probes", probes, [](JsonWriter& out, const ProbePort& one) {
    out.begin_object().field("port", one.port.number).text("path", one.path).end_object();
  });
  return json.end_object().take();
}

std::string encode_trust_bundle(std::uint64_t sequence, std::string_view roots_pem) {
  JsonWriter json;
  return json.begin_object().field("sequence", sequence).field("roots", roots_pem).end_object().take();
}

std::string encode(const FederatedBundleRecord& bundle) {
  JsonWriter json;
  json.begin_object();
  if (bundle.sequence) json.field("sequence", *bundle.sequence);
  return json.field("roots", bundle.roots).end_object().take();
}

std::string encode_nodes(const std::vector<IpAddress>& nodes) {
  JsonWriter json;
  json.begin_object();
  list(json, "addresses", nodes, write_address);
  return json.end_object().take();
}

}  // namespace postern
