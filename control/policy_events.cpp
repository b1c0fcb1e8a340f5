#include "control/policy_events.hpp"

#include <array>
#include <cstdio>
#include <utility>

namespace postern {
namespace {

std::string seconds_text(double seconds) {
  std::array<char, 32> text{};
  std::snprintf(text.data(), text.size(), "%.3f s", seconds);
  return text.data();
}

std::string api_version_of(WatchedKind kind) {
  switch (kind) {
    case WatchedKind::network_policies: return "networking.k8s.io/v1";
    case WatchedKind::endpoint_slices: return "discovery.k8s.io/v1";
    case WatchedKind::pods:
    case WatchedKind::namespaces:
    case WatchedKind::services:
    case WatchedKind::nodes:
    case WatchedKind::mesh_config: return "v1";
  }
  return "v1";
}

std::string kind_of(WatchedKind kind) {
  switch (kind) {
    case WatchedKind::pods: return "Pod";
    case WatchedKind::namespaces: return "Namespace";
    case WatchedKind::network_policies: return "NetworkPolicy";
    case WatchedKind::services: return "Service";
    case WatchedKind::endpoint_slices: return "EndpointSlice";
    case WatchedKind::nodes: return "Node";
    case WatchedKind::mesh_config: return "ConfigMap";
  }
  return "";
}

}  // namespace

void PolicyEvents::saw(const WatchEvent& event) {
  if (event.kind != WatchedKind::network_policies) return;
  if (event.type == WatchEvent::Type::applied) uids_.insert_or_assign(event.key, event.uid);
  if (event.type == WatchEvent::Type::deleted) uids_.erase(event.key);
}

void PolicyEvents::in_force(const ObjectKey& policy, std::int64_t generation, std::size_t pods, double seconds) {
  EventNote note;
  note.reason = "InForce";
  note.action = "Distribute";
  note.note = "generation " + std::to_string(generation) + " is enforced by the sidecars of " + std::to_string(pods) +
              (pods == 1 ? " pod, " : " pods, ") + seconds_text(seconds) + " after its change was seen";
  const auto uid = uids_.find(policy);
  recorder_.record({"networking.k8s.io/v1", "NetworkPolicy", policy.ns, policy.name, uid == uids_.end() ? "" : uid->second},
                   std::move(note));
}

void PolicyEvents::not_in_force(const PolicyStatus& policy, double seconds) {
  constexpr std::size_t named = 5;
  constexpr std::size_t reason_bytes = 120;
  std::size_t lagging = 0;
  std::string names;
  for (const PodStatus& pod : policy.pods) {
    if (pod.state != PodEnforcement::lagging || ++lagging > named) continue;
    names += (lagging == 1 ? ": " : "; ") + pod.pod.text() + " (" + pod.reason.substr(0, reason_bytes) + ")";
  }
  if (lagging == 0) return;
  if (lagging > named) names += "; and " + std::to_string(lagging - named) + " more";
  EventNote note;
  note.warning = true;
  note.reason = "NotInForce";
  note.action = "Distribute";
  note.note = "generation " + std::to_string(policy.generation) + " is not enforced by " + std::to_string(lagging) +
              (lagging == 1 ? " sidecar, " : " sidecars, ") + seconds_text(seconds) + " after its change was seen" + names;
  const auto uid = uids_.find(policy.key);
  recorder_.record({"networking.k8s.io/v1", "NetworkPolicy", policy.key.ns, policy.key.name, uid == uids_.end() ? "" : uid->second},
                   std::move(note));
}

void PolicyEvents::unreadable(const Unreadable& object) {
  EventNote note;
  note.warning = true;
  note.reason = "Unreadable";
  note.action = "Read";
  note.note = object.reason;
  ObjectReference regarding{api_version_of(object.kind), kind_of(object.kind), object.key.ns, object.key.name, object.uid};
  recorder_.record(regarding, std::move(note));
}

}  // namespace postern
