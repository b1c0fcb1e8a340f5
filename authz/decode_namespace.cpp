#include "authz/decode_namespace.hpp"

#include "authz/decode_annotations.hpp"

namespace postern {

Namespace decode_namespace(const Field& object) {
  Namespace out;
  ObjectMeta meta = decode_metadata(object, Scope::cluster);
  out.name = std::move(meta.name);
  if (!out.name.empty()) object["metadata"]["name"].refuse_value(shown(out.name), dns_label_faults(out.name));
  out.labels = std::move(meta.labels);
  out.labels.insert_or_assign(std::string(namespace_name_label), out.name);
  const Annotations annotations(object);
  out.mode = annotations.enforcement();
  MtlsAnnotation mtls = annotations.mtls();
  out.mtls = mtls.mode;
  if (!mtls.ports.empty()) object["metadata"]["annotations"].refuse("postern.dev/mtls of a namespace names no ports; set it on the pods");
  out.allow_trust_domains = annotations.allow_trust_domains();
  annotations.warn_unknown({"enforcement", "mtls", "allow-trust-domain"});
  return out;
}

ClusterNode decode_node(const Field& object) {
  ClusterNode out;
  out.name = decode_metadata(object, Scope::cluster).name;
  for (const Field& item : object["status"]["addresses"].items()) {
    const std::string type = item["type"].string();
    if (type != "InternalIP" && type != "ExternalIP") continue;
    if (const auto address = item["address"].address()) out.addresses.push_back(*address);
  }
  const Field spec = object["spec"];
  std::vector<Field> blocks = spec["podCIDRs"].items();
  if (blocks.empty() && spec["podCIDR"].present()) blocks.push_back(spec["podCIDR"]);
  for (const Field& block : blocks) {
    const std::string text = block.string();
    const auto cidr = Cidr::parse(text);
    if (cidr) {
      out.pod_cidrs.push_back(*cidr);
    } else if (!text.empty()) {
      block.refuse("Invalid value: " + cidr.error().message);
    }
  }
  return out;
}

Result<Namespace> decode_namespace(const Document& document) {
  Decoding decoding(document.source);
  Namespace out = decode_namespace(Field(decoding, document.root));
  if (!decoding.ok()) return decoding.error();
  return out;
}

Result<ClusterNode> decode_node(const Document& document) {
  Decoding decoding(document.source);
  ClusterNode out = decode_node(Field(decoding, document.root));
  if (!decoding.ok()) return decoding.error();
  return out;
}

}  // namespace postern
