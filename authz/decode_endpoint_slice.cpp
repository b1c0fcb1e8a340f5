#include "authz/decode_endpoint_slice.hpp"

#include <utility>

namespace postern {
namespace {

constexpr std::string_view kServiceLabel = "kubernetes.io/service-name";

enum class AddressType : std::uint8_t { v4, v6, names };

AddressType decode_address_type(const Field& field) {
  const std::string text = field.string();
  if (text == "IPv6") return AddressType::v6;
  if (text == "FQDN") return AddressType::names;
  if (text.empty()) {
    field.refuse("Required value: IPv4, IPv6 or FQDN");
  } else if (text != "IPv4") {
    field.refuse(unsupported(text, {"IPv4", "IPv6", "FQDN"}));
  }
  return AddressType::v4;
}

void decode_port(const Field& item, EndpointSlice& out) {
  if (!item.is_mapping()) return;
  SlicePort port;
  const Field name = item["name"];
  port.name = name.string();
  if (!port.name.empty()) name.refuse_value(shown(port.name), dns_label_faults(port.name));
  port.protocol = item["protocol"].protocol().value_or(Protocol::tcp);
  const auto number = item["port"].port();
  if (!number) return;
  port.port = *number;
  out.ports.push_back(std::move(port));
}

SliceEndpoint decode_endpoint(const Field& item, AddressType type, const std::string& slice_ns) {
  SliceEndpoint out;
  if (!item.is_mapping()) return out;
  const Field addresses = item["addresses"];
  const auto all = addresses.items();
  if (all.empty()) addresses.refuse("Required value: must contain at least 1 endpoint address");
  for (const Field& address : all) {
    const auto parsed = address.address();
    if (!parsed) {
      if (address.string().empty()) address.refuse("Invalid value: \"\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
      continue;
    }
    if ((parsed->family() == IpFamily::v4) != (type == AddressType::v4)) {
      address.refuse("Invalid value: " + shown(parsed->text()) + ": is not of the slice's addressType");
    }
    out.addresses.push_back(*parsed);
  }
  const Field conditions = item["conditions"];
  if (conditions.is_mapping()) {
    out.ready = conditions["ready"].boolean(true);
    out.serving = conditions["serving"].boolean(true);
    out.terminating = conditions["terminating"].boolean(false);
  }
  out.node_name = item["nodeName"].string();
  const Field target = item["targetRef"];
  if (target.present() && target.is_mapping() && target["kind"].string() == "Pod") {
    ObjectKey pod{target["namespace"].string(slice_ns), target["name"].string()};
    if (!pod.name.empty()) out.pod = std::move(pod);
  }
  return out;
}

}  // namespace

EndpointSlice decode_endpoint_slice(const Field& object) {
  EndpointSlice out;
  ObjectMeta meta = decode_metadata(object, Scope::namespaced);
  out.ns = std::move(meta.ns);
  out.name = std::move(meta.name);
  if (const auto service = meta.labels.find(kServiceLabel); service != meta.labels.end()) out.service = service->second;
  const AddressType type = decode_address_type(object["addressType"]);
  for (const Field& item : object["ports"].items()) decode_port(item, out);
  const auto endpoints = object["endpoints"].items();
  if (type == AddressType::names) return out;
  out.endpoints.reserve(endpoints.size());
  for (const Field& item : endpoints) out.endpoints.push_back(decode_endpoint(item, type, out.ns));
  return out;
}

Result<EndpointSlice> decode_endpoint_slice(const Document& document) {
  Decoding decoding(document.source);
  EndpointSlice slice = decode_endpoint_slice(Field(decoding, document.root));
  if (!decoding.ok()) return decoding.error();
  return slice;
}

}  // namespace postern
