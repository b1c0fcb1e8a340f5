#include "authz/decode_service.hpp"

#include <algorithm>

namespace postern {
namespace {

void add(std::vector<IpAddress>& out, const std::optional<IpAddress>& address) {
  if (address && std::find(out.begin(), out.end(), *address) == out.end()) out.push_back(*address);
}

ServiceType decode_type(const Field& field) {
  const std::string text = field.string("ClusterIP");
  for (const auto type : {ServiceType::cluster_ip, ServiceType::node_port, ServiceType::load_balancer, ServiceType::external_name}) {
    if (text == name_of(type)) return type;
  }
  field.refuse(unsupported(text, {"ClusterIP", "ExternalName", "LoadBalancer", "NodePort"}));
  return ServiceType::cluster_ip;
}

// "None" marks a headless Service; an address not given yet is "".
void decode_cluster_ip(const Field& field, Service& out) {
  if (field.string() != "None") add(out.cluster_ips, field.address());
}

ServicePort decode_port(const Field& field) {
  ServicePort out;
  if (!field.is_mapping()) return out;
  out.name = field["name"].string();
  out.protocol = field["protocol"].protocol().value_or(Protocol::tcp);
  const Field port = field["port"];
  if (!port.present()) port.refuse("Required value: 1 to 65535");
  out.port = port.port().value_or(Port{});
  const Field target = field["targetPort"];
  const IntOrString value = target.int_or_string();
  if (const auto* number = std::get_if<std::int64_t>(&value); number != nullptr && *number != 0)
    out.target = target.port().value_or(Port{});
  if (const auto* name = std::get_if<std::string>(&value); name != nullptr && !name->empty()) {
    target.refuse_value(shown(*name), port_name_faults(*name));
    out.target = *name;
  }
  const Field node_port = field["nodePort"];
  if (node_port.integer().value_or(0) != 0) out.node_port = node_port.port();
  return out;
}

// Whether the field has the second of two values; absent is the first.
bool is_second(const Field& field, std::string_view first, std::string_view second) {
  const std::string text = field.string(first);
  if (text != first && text != second) field.refuse(unsupported(text, {first, second}));
  return text == second;
}

}  // namespace

Service decode_service(const Field& object) {
  Service out;
  ObjectMeta meta = decode_metadata(object, Scope::namespaced);
  out.ns = std::move(meta.ns);
  out.name = std::move(meta.name);
  const Field spec = object["spec"];
  out.type = decode_type(spec["type"]);
  out.selector = spec["selector"].labels();
  decode_cluster_ip(spec["clusterIP"], out);
  for (const Field& item : spec["clusterIPs"].items()) decode_cluster_ip(item, out);
  for (const Field& item : spec["externalIPs"].items()) add(out.external_ips, item.address());
  for (const Field& item : object["status"]["loadBalancer"]["ingress"].items()) add(out.load_balancer_ips, item["ip"].address());
  for (const Field& item : spec["ports"].items()) out.ports.push_back(decode_port(item));
  out.client_ip_affinity = is_second(spec["sessionAffinity"], "None", "ClientIP");
  const Field timeout = spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"];
  if (const auto seconds = timeout.integer()) {
    if (*seconds < 1 || *seconds > 86400) timeout.refuse_value(std::to_string(*seconds), {"must be greater than 0 and less than 86400"});
    out.affinity_timeout = std::chrono::seconds(*seconds);
  }
  out.internal_traffic_local = is_second(spec["internalTrafficPolicy"], "Cluster", "Local");
  out.publish_not_ready = spec["publishNotReadyAddresses"].boolean();
  return out;
}

Result<Service> decode_service(const Document& document) {
  Decoding decoding(document.source);
  Service service = decode_service(Field(decoding, document.root));
  if (!decoding.ok()) return decoding.error();
  return service;
}

}  // namespace postern
