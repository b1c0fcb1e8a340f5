#include "control/kube_objects.hpp"

#include <charconv>
#include <utility>

#include "authz/decode_annotations.hpp"
#include "authz/decode_common.hpp"
#include "authz/decode_endpoint_slice.hpp"
#include "authz/decode_namespace.hpp"
#include "authz/decode_network_policy.hpp"
#include "authz/decode_pod.hpp"
#include "authz/decode_selector.hpp"
#include "authz/decode_service.hpp"
#include "control/mesh_config.hpp"

namespace postern {
namespace {

constexpr std::string_view kSource = "object";

// The API sends an object as one line, so that the line says nothing: "object:1: spec.ingress[0]" is told as "spec.ingress[0]".
std::string without_lines(std::string text) {
  const std::string prefix = std::string(kSource) + ":1";
  for (std::size_t at = text.find(prefix); at != std::string::npos; at = text.find(prefix, at)) {
    const std::size_t after = at + prefix.size();
    text.erase(at, text.compare(after, 2, ": ") == 0 ? prefix.size() + 2 : prefix.size());
  }
  return text;
}

template <class T>
Result<WatchedObject> finished(const Decoding& decoding, T&& object) {
  if (!decoding.ok()) return decoding.error();
  return WatchedObject(std::forward<T>(object));
}

// What a NetworkPolicy that cannot be read means until it can: the pods that it selects are isolated and nothing is allowed. Only an
// enforcement mode that can be read is believed.
NetworkPolicy stand_in_for(const Node& object, const ObjectIdentity& identity) {
  NetworkPolicy out;
  out.ns = identity.key.ns;
  out.name = identity.key.name;
  Decoding decoding{std::string(kSource)};
  const Field field(decoding, object);
  out.generation = field["metadata"]["generation"].integer().value_or(0);
  Decoding of_mode{std::string(kSource)};
  out.mode = Annotations(Field(of_mode, object)).enforcement();
  if (!of_mode.ok()) out.mode = EnforcementMode::enforce;
  Decoding of_selector{std::string(kSource)};
  out.pod_selector = decode_selector(Field(of_selector, object)["spec"]["podSelector"]);
  if (!of_selector.ok()) out.pod_selector = LabelSelector{};  // every pod of the namespace
  out.isolates_ingress = true;
  out.isolates_egress = true;
  return out;
}

}  // namespace

ObjectReader::ObjectReader(WatchedKind kind, MeshConfig defaults, LastGood last_good)
    : kind_(kind), defaults_(std::move(defaults)), last_good_(std::move(last_good)) {}

void ObjectReader::begin_list() {
  listed_.clear();
  listing_ = true;
}

void ObjectReader::end_list() {
  held_ = std::exchange(listed_, {});
  listing_ = false;
}

Result<WatchedObject> ObjectReader::decode(const Node& object) const {
  Decoding decoding{std::string(kSource)};
  const Field field(decoding, object);
  switch (kind_) {
    case WatchedKind::pods: return finished(decoding, decode_pod(field));
    case WatchedKind::namespaces: return finished(decoding, decode_namespace(field));
    case WatchedKind::network_policies: return finished(decoding, decode_network_policy(field));
    case WatchedKind::services: return finished(decoding, decode_service(field));
    case WatchedKind::endpoint_slices: return finished(decoding, decode_endpoint_slice(field));
    case WatchedKind::nodes: return finished(decoding, decode_node(field));
    case WatchedKind::mesh_config: {
      auto config = decode_mesh_config(object, defaults_);
      if (!config) return config.error();
      return WatchedObject(std::move(*config));
    }
  }
  return Error{"unknown kind", {}};
}

ObjectReader::Outcome ObjectReader::read(const Node& object, const ObjectIdentity& identity) {
  Outcome out;
  const std::string key = identity.key.text();
  const Held now{.uid = std::hash<std::string>()(identity.uid), .stand_in = false};
  auto decoded = decode(object);
  if (decoded) {
    next().insert_or_assign(key, now);
    out.object = std::move(*decoded);
    return out;
  }
  out.unreadable = Unreadable{.kind = kind_, .key = identity.key, .uid = identity.uid, .reason = without_lines(decoded.error().text())};
  const auto held = held_.find(key);
  // The ConfigMap stands for the mesh's settings, whichever object has its name.
  const bool is_same = held != held_.end() && !held->second.stand_in && (held->second.uid == now.uid || kind_ == WatchedKind::mesh_config);
  if (is_same) out.object = last_good_(kind_, identity.key);
  if (out.object) {
    const Held same = held->second;
    next().insert_or_assign(key, same);
  } else if (kind_ == WatchedKind::network_policies) {
    next().insert_or_assign(key, Held{.uid = now.uid, .stand_in = true});
    out.object = stand_in_for(object, identity);
  } else {
    next().erase(key);
  }
  return out;
}

Result<ObjectIdentity> identity_of(const Node& object) {
  const Node* metadata = object.find("metadata");
  const auto text = [&](std::string_view name) {
    const Node* field = metadata == nullptr ? nullptr : metadata->find(name);
    return field == nullptr || !field->is(Node::Kind::string) ? std::string() : field->scalar;
  };
  ObjectIdentity out;
  out.key = {text("namespace"), text("name")};
  out.uid = text("uid");
  const std::string version = text("resourceVersion");
  const char* end = version.data() + version.size();
  const auto [at, error] = std::from_chars(version.data(), end, out.version);
  if (version.empty() || error != std::errc() || at != end) {
    return Error{"metadata.resourceVersion is no number: " + shown(version), "an object of the API server"};
  }
  return out;
}

}  // namespace postern
