#include "control/manifest_injection.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "base/document_writer.hpp"
#include "control/injector.hpp"

namespace postern {
namespace {

struct Carrier {
  std::string_view kind;
  std::string_view group;                // of apiVersion: "apps/"; empty: v1
  std::array<std::string_view, 5> path;  // to the template; empty ones end it
};
constexpr std::array<Carrier, 8> carriers{{{"Pod", "", {}},
                                           {"ReplicationController", "", {"spec", "template"}},
                                           {"Deployment", "apps/", {"spec", "template"}},
                                           {"StatefulSet", "apps/", {"spec", "template"}},
                                           {"DaemonSet", "apps/", {"spec", "template"}},
                                           {"ReplicaSet", "apps/", {"spec", "template"}},
                                           {"Job", "batch/", {"spec", "template"}},
                                           {"CronJob", "batch/", {"spec", "jobTemplate", "spec", "template"}}}};

std::string text_at(const Node& node, std::string_view key) {
  const Node* found = node.find(key);
  return found == nullptr ? std::string() : found->scalar;
}

std::string name_of_object(const Node& object) {
  const Node* metadata = object.find("metadata");
  std::string name = metadata == nullptr ? std::string() : text_at(*metadata, "name");
  if (name.empty() && metadata != nullptr) name = text_at(*metadata, "generateName");
  const std::string ns = metadata == nullptr ? std::string() : text_at(*metadata, "namespace");
  return text_at(object, "kind") + " " + (ns.empty() ? "" : ns + "/") + name;
}

Node* descend(Node& object, const Carrier& carrier) {
  Node* node = &object;
  for (const std::string_view key : carrier.path) {
    if (key.empty()) break;
    const auto found = std::find_if(node->fields.begin(), node->fields.end(), [&](const auto& field) { return field.first == key; });
    if (found == node->fields.end()) return nullptr;
    node = &found->second;
  }
  return node;
}

Result<void> inject_object(Node& object, const std::string& source, const InjectionSettings& settings,
                           std::vector<ManifestInjection>& done) {
  const std::string kind = text_at(object, "kind");
  const std::string version = text_at(object, "apiVersion");
  if (kind.ends_with("List") && object.find("items") != nullptr) {
    for (Node& item : field_of(object, "items").items) {
      if (auto injected = inject_object(item, source, settings, done); !injected) return injected.error();
    }
    return {};
  }
  const auto carrier = std::find_if(carriers.begin(), carriers.end(), [&](const Carrier& one) {
    return one.kind == kind && (one.group.empty() ? version == "v1" : version.starts_with(one.group));
  });
  if (carrier == carriers.end()) return {};
  const std::string where = source + ":" + std::to_string(object.line) + ": " + name_of_object(object);
  Node* pod = descend(object, *carrier);
  if (pod == nullptr) return Error{"there is no pod template in it", where};
  Injection injection = inject(*pod, settings);
  if (injection.outcome == Injection::Outcome::denied) return Error{std::move(injection.reason), where};
  const bool is_injected = injection.outcome == Injection::Outcome::injected;
  done.push_back({name_of_object(object), is_injected ? "injected" : "left alone: " + injection.reason, std::move(injection.warnings)});
  if (is_injected) *pod = std::move(injection.pod);
  return {};
}

}  // namespace

Result<void> inject_manifest(Document& document, const InjectionSettings& settings, std::vector<ManifestInjection>& done) {
  return inject_object(document.root, document.source, settings, done);
}

}  // namespace postern
