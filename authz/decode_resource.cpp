// decode_into(), body_of(), remove_from(): see resource.hpp.
#include <algorithm>
#include <array>
#include <limits>
#include <utility>

#include "authz/decode_common.hpp"
#include "authz/decode_network_policy.hpp"
#include "authz/decode_selector.hpp"
#include "authz/mesh_names.hpp"
#include "authz/resource.hpp"
#include "base/certificate_serial.hpp"
#include "base/federated_bundle.hpp"

namespace postern {
namespace {

constexpr std::string_view kPeerSet = "peer-set/";
constexpr std::string_view kPod = "pod/";
constexpr std::string_view kService = "service/";

std::string required(const Field& field) {
  std::string text = field.string();
  if (text.empty()) field.refuse("Required value");
  return text;
}

std::string namespace_name(const Field& field) {
  std::string text = required(field);
  field.refuse_value(shown(text), dns_label_faults(text));
  return text;
}

std::string object_name(const Field& field) {
  std::string text = required(field);
  field.refuse_value(shown(text), dns_subdomain_faults(text));
  return text;
}

std::optional<ObjectKey> parse_key(std::string_view text) {
  const auto slash = text.find('/');
  if (slash == std::string_view::npos) return std::nullopt;
  ObjectKey key{std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
  if (!dns_label_faults(key.ns).empty() || !dns_subdomain_faults(key.name).empty()) return std::nullopt;
  return key;
}

ObjectKey object_key(const Field& field) {
  const std::string text = required(field);
  auto key = parse_key(text);
  if (!key) field.refuse("Invalid value: " + shown(text) + ": expected namespace/name");
  return key ? *std::move(key) : ObjectKey{};
}

template <class Value, std::size_t N>
Value spelled(const Field& field, const std::array<std::pair<std::string_view, Value>, N>& names) {
  const std::string text = required(field);
  std::string known;
  for (const auto& [name, value] : names) {
    if (name == text) return value;
    known.append(known.empty() ? "" : ", ").append(name);
  }
  field.refuse("Unsupported value: " + shown(text) + ": expected one of " + known);
  return names.front().second;
}

constexpr std::array enforcement_names{std::pair{std::string_view("enforce"), EnforcementMode::enforce},
                                       std::pair{std::string_view("audit"), EnforcementMode::audit}};

IpAddress address_of(const Field& field) {
  const auto address = field.address();
  if (!address && field.string().empty()) field.refuse("Required value: an IP address");
  return address.value_or(IpAddress());
}

Cidr cidr_of(const Field& field) {
  const std::string text = required(field);
  const auto cidr = Cidr::parse(text);
  if (!cidr) field.refuse("Invalid value: " + cidr.error().message);
  return cidr ? *cidr : Cidr();
}

Port port_of(const Field& field) {
  if (!field.present()) field.refuse("Required value: 1 to 65535");
  return field.port().value_or(Port{});
}

// A number from 0 to `most`.
std::uint32_t index_of(const Field& field, std::int64_t most) {
  const auto number = field.integer();
  if (!field.present()) field.refuse("Required value: a number");
  if (!number) return 0;
  if (*number >= 0 && *number <= most) return static_cast<std::uint32_t>(*number);
  field.refuse("Invalid value: " + std::to_string(*number) + ": expected 0 to " + std::to_string(most));
  return 0;
}

template <class Read>
auto list_of(const Field& field, const Read& read) {
  const auto items = field.items();
  std::vector<decltype(read(field))> out;
  out.reserve(items.size());
  for (const Field& item : items) out.push_back(read(item));
  return out;
}

// Members and names are sorted and there once: equal sets have equal bodies.
template <class Item>
void expect_ascending(const Field& field, const std::vector<Item>& items) {
  const auto unordered = std::adjacent_find(items.begin(), items.end(), [](const Item& a, const Item& b) { return !(a < b); });
  if (unordered != items.end()) field.refuse("must be sorted, each once");
}

std::string spiffe_id_of(const Field& field) {
  std::string text = required(field);
  if (const auto id = SpiffeId::parse(text); !id) field.refuse("Invalid value: " + id.error().message);
  return text;
}

std::string trust_domain_of(const Field& field) {
  std::string text = required(field);
  if (const auto domain = TrustDomain::parse(text); !domain) field.refuse("Invalid value: " + domain.error().message);
  return text;
}

DeniedIdentities decode_denied(const Field& field) {
  field.expect_only({"serials", "spiffeIds"});
  DeniedIdentities out;
  out.serials = list_of(field["serials"], [](const Field& one) {
    const std::string text = required(one);
    const auto serial = canonical_serial(text);
    if (!serial || *serial != text)
      one.refuse("Invalid value: " + shown(text) + ": expected an even number of upper-case hexadecimal digits");
    return text;
  });
  out.spiffe_ids = list_of(field["spiffeIds"], spiffe_id_of);
  expect_ascending(field["serials"], out.serials);
  expect_ascending(field["spiffeIds"], out.spiffe_ids);
  return out;
}

MeshSettings decode_settings(const Field& body) {
  body.expect_only({"trustDomain", "defaultPolicy", "nodeTraffic", "mtls", "audit", "clusterCidrs", "nodeAddresses", "denied"});
  MeshSettings out;
  const Field domain = body["trustDomain"];
  const auto parsed = TrustDomain::parse(domain.string());
  if (parsed) {
    out.trust_domain = *parsed;
  } else {
    domain.refuse("Invalid value: " + parsed.error().message);
  }
  out.default_policy = spelled(body["defaultPolicy"], default_policy_names);
  out.node_traffic = spelled(body["nodeTraffic"], node_traffic_names);
  out.mtls = spelled(body["mtls"], mtls_mode_names);
  out.audit = body["audit"].boolean();
  out.cluster_cidrs = list_of(body["clusterCidrs"], cidr_of);
  out.node_addresses = list_of(body["nodeAddresses"], address_of);
  if (const Field denied = body["denied"]; denied.present()) out.denied = decode_denied(denied);
  return out;
}

AllowedPeer decode_peer(const Field& field, const RuleOrigin& rule, std::size_t peer_sets) {
  field.expect_only({"peer", "set", "cidr", "except", "spiffeId"});
  AllowedPeer out{.origin = rule, .peer = AnyPeer{}};
  const Field position = field["peer"];
  if (position.present()) out.origin.peer = static_cast<std::int32_t>(index_of(position, std::numeric_limits<std::int32_t>::max()));
  const Field set = field["set"];
  const Field block = field["cidr"];
  const Field listed = field["spiffeId"];
  if (set.present() + block.present() + listed.present() > 1) field.refuse("names more than one of a peer set, a block and a SPIFFE ID");
  if (listed.present()) {
    if (position.present()) position.refuse("a SPIFFE ID is none of the rule's own peers");
    out.origin.peer = RuleOrigin::annotation;
    out.peer = SpiffeIdPeer{spiffe_id_of(listed)};
  } else if (set.present()) {
    out.peer = PeerSetRef{index_of(set, static_cast<std::int64_t>(peer_sets) - 1)};
  } else if (block.present()) {
    IpBlock value{.cidr = cidr_of(block), .except = list_of(field["except"], cidr_of)};
    for (const Cidr& except : value.except) {
      if (!value.cidr.contains(except)) field["except"].refuse("Invalid value: " + except.text() + ": lies outside " + value.cidr.text());
    }
    out.peer = std::move(value);
  }
  if (!block.present() && field["except"].present()) field["except"].refuse("only a block has exceptions");
  return out;
}

AllowRule decode_rule(const Field& field, std::size_t peer_sets) {
  field.expect_only({"namespace", "policy", "rule", "audit", "replaced", "ports", "peers"});
  const RuleOrigin origin{.ns = namespace_name(field["namespace"]),
                          .policy = object_name(field["policy"]),
                          .rule = index_of(field["rule"], std::numeric_limits<std::int32_t>::max())};
  AllowRule out{.audit = field["audit"].boolean(),
                .replaced = field["replaced"].boolean(),
                .ports = list_of(field["ports"], decode_policy_port),
                .peers = list_of(field["peers"], [&](const Field& peer) { return decode_peer(peer, origin, peer_sets); })};
  if (out.peers.empty()) field["peers"].refuse("Required value: a rule without peers allows nobody");
  return out;
}

AllowDirection decode_direction(const Field& field, std::size_t peer_sets) {
  if (!field.present()) field.refuse("Required value");
  field.expect_only({"isolating", "defaultDeny", "rules"});
  AllowDirection out;
  out.isolating = list_of(field["isolating"], [](const Field& one) {
    one.expect_only({"namespace", "policy", "audit", "replaced"});
    return IsolatingPolicy{.ns = namespace_name(one["namespace"]),
                           .policy = object_name(one["policy"]),
                           .audit = one["audit"].boolean(),
                           .replaced = one["replaced"].boolean()};
  });
  if (const Field deny = field["defaultDeny"]; deny.present()) out.default_deny = spelled(deny, enforcement_names);
  out.rules = list_of(field["rules"], [&](const Field& rule) { return decode_rule(rule, peer_sets); });
  return out;
}

AllowListRecord decode_allow_list(const Field& body) {
  body.expect_only({"peerSets", "trustDomains", "ingress", "egress"});
  AllowListRecord out;
  out.peer_sets = list_of(body["peerSets"], required);
  out.list.trust_domains = list_of(body["trustDomains"], trust_domain_of);
  expect_ascending(body["trustDomains"], out.list.trust_domains);
  out.list.ingress = decode_direction(body["ingress"], out.peer_sets.size());
  out.list.egress = decode_direction(body["egress"], out.peer_sets.size());
  return out;
}

PeerSetRecord decode_peer_set(const Field& body) {
  body.expect_only({"namespaceSelector", "podSelector", "wholeNamespaces", "namespaces", "members"});
  PeerSetRecord out;
  // An empty selector matches everything, so that one which is missing must not pass for it.
  for (const char* selector : {"namespaceSelector", "podSelector"}) {
    if (!body[selector].present()) body[selector].refuse("Required value: {} for everything");
  }
  out.namespaces = decode_selector(body["namespaceSelector"]);
  out.pods = decode_selector(body["podSelector"]);
  out.whole_namespaces = body["wholeNamespaces"].boolean();
  if (out.whole_namespaces && !out.pods.empty()) body["wholeNamespaces"].refuse("a set with a podSelector is not whole namespaces");
  const Field namespaces = body["namespaces"];
  const Field members = body["members"];
  out.namespace_names = list_of(namespaces, namespace_name);
  out.members = list_of(members, object_key);
  expect_ascending(namespaces, out.namespace_names);
  expect_ascending(members, out.members);
  if (!out.whole_namespaces && !out.namespace_names.empty()) namespaces.refuse("only a set of whole namespaces names them");
  if (out.whole_namespaces && !out.members.empty()) members.refuse("a set of whole namespaces has no members");
  return out;
}

NamedPort decode_named_port(const Field& field) {
  field.expect_only({"name", "protocol", "port"});
  const Field name = field["name"];
  NamedPort out{.name = required(name), .protocol = field["protocol"].protocol().value_or(Protocol::tcp), .port = port_of(field["port"])};
  name.refuse_value(shown(out.name), port_name_faults(out.name));
  return out;
}

PodRecord decode_pod_record(const Field& body) {
  body.expect_only({"namespace", "name", "uid", "serviceAccount", "addresses", "meshed", "hostNetwork", "mtls", "portMtls",
                    "excludedInboundPorts", "excludedOutboundPorts", "namedPorts", "node", "terminating"});
  PodRecord out;
  Workload& workload = out.workload;
  workload.ns = namespace_name(body["namespace"]);
  workload.name = object_name(body["name"]);
  workload.uid = body["uid"].string();
  body["uid"].refuse_value(shown(workload.uid), label_value_faults(workload.uid));
  workload.service_account = object_name(body["serviceAccount"]);
  workload.addresses = list_of(body["addresses"], address_of);
  workload.meshed = body["meshed"].boolean();
  workload.host_network = body["hostNetwork"].boolean();
  workload.mtls = spelled(body["mtls"], mtls_mode_names);
  workload.port_mtls = list_of(body["portMtls"], [](const Field& one) {
    one.expect_only({"port", "mtls"});
    return std::pair{port_of(one["port"]), spelled(one["mtls"], mtls_mode_names)};
  });
  workload.excluded_inbound_ports = list_of(body["excludedInboundPorts"], port_of);
  workload.excluded_outbound_ports = list_of(body["excludedOutboundPorts"], port_of);
  workload.named_ports = list_of(body["namedPorts"], decode_named_port);
  out.node_name = body["node"].string();
  out.terminating = body["terminating"].boolean();
  return out;
}

std::vector<ServiceEndpoint> decode_endpoints(const Field& field, IpFamily family) {
  auto out = list_of(field, [family](const Field& one) {
    one.expect_only({"address", "port", "node", "pod"});
    const Field address = one["address"];
    ServiceEndpoint endpoint{{address_of(address), port_of(one["port"])}, one["node"].string(), std::nullopt};
    if (endpoint.address.address.family() != family) address.refuse("is of the other address family");
    if (const Field pod = one["pod"]; pod.present()) endpoint.pod = object_key(pod);
    return endpoint;
  });
  const auto not_before = [](const ServiceEndpoint& a, const ServiceEndpoint& b) { return !(a.address < b.address); };
  if (std::adjacent_find(out.begin(), out.end(), not_before) != out.end()) field.refuse("must be sorted by address, each once");
  return out;
}

ServiceRecord decode_service_record(const Field& body) {
  body.expect_only({"namespace", "name", "clusterIPs", "addresses", "localOnly", "sticky", "ports"});
  ServiceRecord out;
  out.key = {namespace_name(body["namespace"]), object_name(body["name"])};
  out.cluster_ips = list_of(body["clusterIPs"], address_of);
  out.other_addresses = list_of(body["addresses"], address_of);
  out.local_only = body["localOnly"].boolean();
  out.sticky = body["sticky"].boolean();
  out.ports = list_of(body["ports"], [](const Field& one) {
    one.expect_only({"port", "nodePort", "ipv4", "ipv6"});
    ServiceRecordPort port;
    port.port = port_of(one["port"]);
    port.node_port = one["nodePort"].port();
    port.endpoints = {decode_endpoints(one["ipv4"], IpFamily::v4), decode_endpoints(one["ipv6"], IpFamily::v6)};
    return port;
  });
  return out;
}

std::vector<ProbePort> decode_probes(const Field& body) {
  body.expect_only({"probes"});
  return list_of(body["probes"], [](const Field& one) {
    one.expect_only({"port", "path"});
    return ProbePort{.port = port_of(one["port"]), .path = one["path"].string()};
  });
}

std::vector<IpAddress> decode_nodes(const Field& body) {
  body.expect_only({"addresses"});
  return list_of(body["addresses"], address_of);
}

// A body must be of the object that the resource's name says.
void expect_key(const Field& body, const ObjectKey& found, std::string_view named) {
  if (found.text() != named) body.refuse("is of " + shown(found.text()) + ", not of the object that the resource is named after");
}

bool read(SnapshotParts& parts, std::string_view name, const Field& body) {
  Decoding& decoding = body.decoding();
  // `value` replaces `part` once all of it has been found good.
  const auto accept = [&decoding](auto& part, auto value) {
    if (decoding.ok()) part = std::move(value);
    return true;
  };
  if (!body.node().is(Node::Kind::mapping)) {
    body.refuse("expected a mapping, found " + std::string(name_of(body.node().kind)));
    return true;
  }
  if (name == "settings") return accept(parts.settings, decode_settings(body));
  if (name == "allow-list") return accept(parts.allow_list, decode_allow_list(body));
  if (name == "probes") return accept(parts.probe_ports, decode_probes(body));
  if (name == "nodes") return accept(parts.nodes, decode_nodes(body));
  if (name.starts_with(kPeerSet) && name.size() > kPeerSet.size()) {
    PeerSetRecord set = decode_peer_set(body);
    if (decoding.ok()) parts.peer_sets.insert_or_assign(std::string(name.substr(kPeerSet.size())), std::move(set));
    return true;
  }
  if (name.starts_with(kPod)) {
    PodRecord pod = decode_pod_record(body);
    WorkloadKey key{pod.workload.ns, pod.workload.name};
    expect_key(body, key, name.substr(kPod.size()));
    if (decoding.ok()) parts.pods.insert_or_assign(std::move(key), std::move(pod));
    return true;
  }
  if (name.starts_with(federated_bundle_prefix)) {
    const std::string domain(name.substr(federated_bundle_prefix.size()));
    if (const auto parsed = TrustDomain::parse(domain); !parsed) body.refuse("is named after no trust domain: " + parsed.error().message);
    body.expect_only({"sequence", "roots"});
    const Field sequence = body["sequence"];
    const auto number = sequence.integer();
    if (number && *number < 0) sequence.refuse("expected a number from 0");
    FederatedBundleRecord bundle{.sequence = std::nullopt, .roots = required(body["roots"])};
    if (number) bundle.sequence = static_cast<std::uint64_t>(*number);
    if (decoding.ok() && !parts.federated_bundles.contains(domain) && parts.federated_bundles.size() >= max_federated_bundles)
      body.refuse("more than " + std::to_string(max_federated_bundles) + " trust domains");
    if (decoding.ok()) parts.federated_bundles.insert_or_assign(domain, std::move(bundle));
    return true;
  }
  if (name == trust_bundle_name) {
    body.expect_only({"sequence", "roots"});
    const auto sequence = body["sequence"].integer().value_or(-1);
    if (sequence < 0) body["sequence"].refuse("expected a number from 0");
    TrustBundleRecord bundle{static_cast<std::uint64_t>(sequence), required(body["roots"])};
    if (decoding.ok()) parts.trust_bundle = std::move(bundle);
    return true;
  }
  if (name.starts_with(kService)) {
    ServiceRecord service = decode_service_record(body);
    expect_key(body, service.key, name.substr(kService.size()));
    if (decoding.ok()) parts.services.insert_or_assign(service.key, std::move(service));
    return true;
  }
  return false;
}

}  // namespace

Result<void> decode_into(SnapshotParts& parts, std::string_view name, const Node& body) {
  if (name.size() > resource_name_bytes) {
    return Error{"a resource's name is longer than " + std::to_string(resource_name_bytes) + " bytes", std::string(name.substr(0, 64))};
  }
  Decoding decoding{std::string(name)};
  if (!read(parts, name, Field(decoding, body))) return Error{"unknown kind of resource " + shown(name), ""};
  if (!decoding.ok()) return decoding.error();
  return {};
}

std::optional<std::string> body_of(const SnapshotParts& parts, std::string_view name) {
  const auto found = [](const auto& all, const auto& key) -> std::optional<std::string> {
    const auto part = all.find(key);
    return part == all.end() ? std::nullopt : std::optional(encode(part->second));
  };
  if (name == "settings") return parts.settings ? std::optional(encode(*parts.settings)) : std::nullopt;
  if (name == "allow-list") return parts.allow_list ? std::optional(encode(*parts.allow_list)) : std::nullopt;
  if (name == "probes") return encode_probes(parts.probe_ports);
  if (name == "nodes") return encode_nodes(parts.nodes);
  if (name == trust_bundle_name) {
    if (!parts.trust_bundle) return std::nullopt;
    return encode_trust_bundle(parts.trust_bundle->sequence, parts.trust_bundle->roots);
  }
  if (name.starts_with(federated_bundle_prefix))
    return found(parts.federated_bundles, std::string(name.substr(federated_bundle_prefix.size())));
  if (name.starts_with(kPeerSet)) return found(parts.peer_sets, std::string(name.substr(kPeerSet.size())));
  const bool is_pod = name.starts_with(kPod);
  if (!is_pod && !name.starts_with(kService)) return std::nullopt;
  const auto key = parse_key(name.substr(is_pod ? kPod.size() : kService.size()));
  if (!key) return std::nullopt;
  return is_pod ? found(parts.pods, *key) : found(parts.services, *key);
}

void remove_from(SnapshotParts& parts, std::string_view name) {
  if (name == "settings") parts.settings.reset();
  if (name == "allow-list") parts.allow_list.reset();
  if (name == "probes") parts.probe_ports.clear();
  if (name == "nodes") parts.nodes.clear();
  if (name == trust_bundle_name) parts.trust_bundle.reset();
  if (name.starts_with(federated_bundle_prefix)) parts.federated_bundles.erase(std::string(name.substr(federated_bundle_prefix.size())));
  if (name.starts_with(kPeerSet)) parts.peer_sets.erase(std::string(name.substr(kPeerSet.size())));
  const bool is_pod = name.starts_with(kPod);
  if (!is_pod && !name.starts_with(kService)) return;
  const auto key = parse_key(name.substr(is_pod ? kPod.size() : kService.size()));
  if (!key) return;
  if (is_pod) {
    parts.pods.erase(*key);
  } else {
    parts.services.erase(*key);
  }
}

}  // namespace postern
