#include "authz/decode_network_policy.hpp"

#include "authz/decode_annotations.hpp"
#include "authz/decode_selector.hpp"

namespace postern {
namespace {

constexpr std::string_view kBadCidr = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

struct ParsedBlock {
  Cidr cidr;
  unsigned written_prefix = 0;  // as the API counts it: of 128 bits for an IPv4-mapped block
};

// apimachinery, validation.IsValidCIDRForLegacyField and GetWarningsForCIDR.
std::optional<ParsedBlock> decode_cidr(const Field& field) {
  const std::string text = field.string();
  const auto cidr = Cidr::parse(text);
  if (!cidr) {
    field.refuse_value(shown(text), {std::string(kBadCidr)});
    return std::nullopt;
  }
  const std::size_t slash = text.find('/');
  const auto address = IpAddress::parse(text.substr(0, slash));
  const bool mapped = cidr->address().is_v4() && text.find(':') != std::string::npos;
  if (!address || mapped || text.substr(slash + 1) != std::to_string(cidr->prefix())) {
    field.warn("non-standard CIDR value " + shown(text) + " will be considered invalid in a future Kubernetes release: use \"" +
               cidr->text() + "\"");
  } else if (*address != cidr->address()) {
    field.warn("CIDR value " + shown(text) + " is ambiguous in this context (should be \"" + cidr->text() + "\" or \"" + address->text() +
               "/" + std::to_string(address->bits()) + "\"?); its host bits mean nothing");
  }
  return ParsedBlock{*cidr, cidr->prefix() + (mapped ? 96U : 0U)};
}

// validation.ValidateIPBlock
IpBlock decode_ip_block(const Field& field) {
  field.expect_only({"cidr", "except"});
  IpBlock out;
  const Field cidr = field["cidr"];
  const std::vector<Field> excepts = field["except"].items();
  if (cidr.string().empty()) {
    cidr.refuse("Required value: the block this peer means, such as \"10.0.0.0/8\"");
    return out;
  }
  const auto block = decode_cidr(cidr);
  if (!block) return out;
  out.cidr = block->cidr;
  for (const Field& item : excepts) {
    const auto except = decode_cidr(item);
    if (!except) continue;
    if (!out.cidr.contains(except->cidr.address()) || block->written_prefix >= except->written_prefix) {
      item.refuse_value(shown(item.string()), {"must be a strict subset of `cidr`"});
    }
    out.except.push_back(except->cidr);
  }
  return out;
}

// validation.ValidateNetworkPolicyPeer
PolicyPeer decode_peer(const Field& field) {
  PolicyPeer out;
  field.expect_only({"podSelector", "namespaceSelector", "ipBlock"});
  if (!field.is_mapping()) return out;
  const Field pods = field["podSelector"];
  const Field namespaces = field["namespaceSelector"];
  const Field block = field["ipBlock"];
  if (pods.present()) out.pod_selector = decode_selector(pods);
  if (namespaces.present()) out.namespace_selector = decode_selector(namespaces);
  if (block.present()) out.ip_block = decode_ip_block(block);
  if (out.ip_block && (out.pod_selector || out.namespace_selector))
    field.refuse("Forbidden: may not specify both ipBlock and another peer");
  if (!out.ip_block && !out.pod_selector && !out.namespace_selector) {
    field.refuse("Required value: must specify a peer (podSelector, namespaceSelector or ipBlock)");
  }
  return out;
}

void decode_end_port(const Field& field, const IntOrString& port, PolicyPort& out) {
  const auto end = field.integer();
  if (!end) return;
  const std::string value = std::to_string(*end);
  if (std::holds_alternative<std::monostate>(port)) return field.refuse_value(value, {"may not be specified when `port` is not specified"});
  if (std::holds_alternative<std::string>(port)) return field.refuse_value(value, {"may not be specified when `port` is non-numeric"});
  if (*end < std::get<std::int64_t>(port)) field.refuse_value(value, {"must be greater than or equal to `port`"});
  out.end_port = field.port();
}

}  // namespace

PolicyPort decode_policy_port(const Field& field) {
  PolicyPort out;
  field.expect_only({"protocol", "port", "endPort"});
  if (!field.is_mapping()) return out;
  const Field protocol = field["protocol"];
  out.protocol = protocol.protocol().value_or(Protocol::tcp);
  if (out.protocol != Protocol::tcp) {
    field.warn(std::string(name_of(out.protocol)) + " is not enforced by the proxy, which only sees TCP; a network plugin has to");
  }
  const Field port = field["port"];
  const IntOrString value = port.int_or_string();
  if (std::holds_alternative<std::int64_t>(value)) out.port = port.port();
  if (const auto* name = std::get_if<std::string>(&value)) {
    port.refuse_value(shown(*name), port_name_faults(*name));
    out.name = *name;
  }
  decode_end_port(field["endPort"], value, out);
  return out;
}

namespace {

std::vector<PolicyRule> decode_rules(const Field& field, std::string_view peers) {
  std::vector<PolicyRule> out;
  for (const Field& item : field.items()) {
    PolicyRule rule;
    item.expect_only({"ports", peers});
    for (const Field& port : item["ports"].items()) rule.ports.push_back(decode_policy_port(port));
    for (const Field& peer : item[peers].items()) rule.peers.push_back(decode_peer(peer));
    out.push_back(std::move(rule));
  }
  return out;
}

void decode_policy_types(const Field& field, NetworkPolicy& out) {
  const std::vector<Field> types = field.items();
  if (types.empty()) return out.default_policy_types();
  out.isolates_ingress = false;
  out.isolates_egress = false;
  if (types.size() > 2) field.refuse("Invalid value: may not specify more than two policyTypes");
  for (const Field& type : types) {
    const std::string name = type.string();
    if (name == "Ingress") {
      out.isolates_ingress = true;
    } else if (name == "Egress") {
      out.isolates_egress = true;
    } else {
      type.refuse(unsupported(name, {"Ingress", "Egress"}));
    }
  }
}

}  // namespace

NetworkPolicy decode_network_policy(const Field& object) {
  // `status` existed in Kubernetes 1.24 to 1.27, and exported manifests still carry it.
  object.expect_only({"apiVersion", "kind", "metadata", "spec", "status"});
  object["metadata"].expect_only({"name", "generateName", "namespace", "selfLink", "uid", "resourceVersion", "generation",
                                  "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "labels", "annotations",
                                  "ownerReferences", "finalizers", "managedFields"});
  NetworkPolicy out;
  ObjectMeta meta = decode_metadata(object, Scope::namespaced);
  out.ns = std::move(meta.ns);
  out.name = std::move(meta.name);
  out.generation = meta.generation;
  const Annotations annotations(object);
  out.mode = annotations.enforcement();
  out.replaces = annotations.replaces(out.name);
  out.allow_spiffe_ids = annotations.allow_spiffe_ids();
  annotations.warn_unknown({"enforcement", "replaces", "allow-spiffe-ids"});

  const Field spec = object["spec"];
  spec.expect_only({"podSelector", "ingress", "egress", "policyTypes"});
  out.pod_selector = decode_selector(spec["podSelector"]);
  out.ingress = decode_rules(spec["ingress"], "from");
  out.egress = decode_rules(spec["egress"], "to");
  decode_policy_types(spec["policyTypes"], out);
  if (!out.allow_spiffe_ids.empty() && (!out.isolates_ingress || out.ingress.empty())) {
    object["metadata"]["annotations"].warn(std::string(allow_spiffe_ids_annotation) +
                                           " allows nobody: it adds peers to ingress rules, and this policy has none in force");
  }
  return out;
}

Result<NetworkPolicy> decode_network_policy(const Document& document, std::vector<Warning>* warnings) {
  Decoding decoding(document.source);
  NetworkPolicy policy = decode_network_policy(Field(decoding, document.root));
  if (!decoding.ok()) return decoding.error();
  if (warnings != nullptr) warnings->insert(warnings->end(), decoding.warnings().begin(), decoding.warnings().end());
  return policy;
}

}  // namespace postern
