#include "control/in_force.hpp"

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <utility>

#include "base/json_writer.hpp"

namespace postern {
namespace {

using std::chrono::system_clock;

bool is_audit(const NetworkPolicy& policy, const ClusterStore& store) {
  if (store.mesh().settings.audit) return true;
  if (policy.mode) return *policy.mode == EnforcementMode::audit;
  const auto ns = store.view().namespaces.find(policy.ns);
  return ns != store.view().namespaces.end() && ns->second.mode == EnforcementMode::audit;
}

std::string text_of_port(const PolicyPort& port) {
  std::string text{name_of(port.protocol)};
  if (!port.name.empty()) return text + " port " + port.name;
  if (!port.port) return text;
  text += " port " + std::to_string(port.port->number);
  if (port.end_port) text += "-" + std::to_string(port.end_port->number);
  return text;
}

void add_not_enforced(std::vector<std::string>& out, std::string_view direction, const std::vector<PolicyRule>& rules) {
  for (std::size_t i = 0; i < rules.size(); ++i) {
    std::string ports;
    for (const PolicyPort& port : rules[i].ports) {
      if (port.protocol != Protocol::tcp) ports += (ports.empty() ? "" : ", ") + text_of_port(port);
    }
    if (!ports.empty()) out.push_back(std::string(direction) + " rule " + std::to_string(i + 1) + ": " + ports);
  }
}

std::vector<std::string> not_enforced(const NetworkPolicy& policy) {
  std::vector<std::string> out;
  if (policy.isolates_ingress) add_not_enforced(out, "ingress", policy.ingress);
  if (policy.isolates_egress) add_not_enforced(out, "egress", policy.egress);
  return out;
}

bool enforces(const std::map<std::string, std::string>& wanted, const StreamState& stream) {
  if (wanted.empty() || stream.acknowledged == nullptr) return false;
  return std::all_of(wanted.begin(), wanted.end(),
                     [&](const auto& resource) { return stream.acknowledged->has(resource.first, resource.second); });
}

// What a pod's sidecar does with the policies that are not in audit.
PodStatus status_of(const WorkloadKey& key, const Pod& pod, Publisher& publisher, const StreamOf& stream_of) {
  PodStatus status{.pod = key, .state = PodEnforcement::unmeshed, .since = {}, .reason = {}};
  if (!pod.workload.meshed) return status;
  const StreamState stream = stream_of(key);
  if (!stream.connected) {
    status.state = PodEnforcement::disconnected;
  } else if (enforces(publisher.resources_of(key), stream)) {
    status.state = PodEnforcement::enforced;
    status.since = stream.since;
  } else {
    status.state = PodEnforcement::lagging;
    status.reason = stream.refusal.empty() ? "its sidecar has not acknowledged the current version yet" : "refused: " + stream.refusal;
  }
  return status;
}

std::string utc(system_clock::time_point time) {
  const auto since_epoch = std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
  const std::time_t seconds = static_cast<std::time_t>(since_epoch / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[64];
  const auto length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  char millis[16];
  std::snprintf(millis, sizeof millis, ".%03dZ", static_cast<int>(since_epoch % 1000));
  return std::string(text, length) + millis;
}

}  // namespace

std::string_view name_of(PodEnforcement state) {
  switch (state) {
    case PodEnforcement::enforced: return "enforced";
    case PodEnforcement::lagging: return "lagging";
    case PodEnforcement::disconnected: return "disconnected";
    case PodEnforcement::unmeshed: return "unmeshed";
    case PodEnforcement::audit: return "audit";
  }
  return "";
}

std::vector<PolicyStatus> policy_status(const ClusterStore& store, Publisher& publisher, const StreamOf& stream_of, std::string_view ns,
                                        std::string_view name) {
  const ClusterView& view = store.view();
  std::map<WorkloadKey, PodStatus> known;  // many policies select the same pod
  std::vector<PolicyStatus> out;
  for (auto it = view.policies.lower_bound({std::string(ns), ""}); it != view.policies.end(); ++it) {
    const auto& [key, policy] = *it;
    if (!ns.empty() && key.ns != ns) break;
    if (!name.empty() && key.name != name) continue;
    PolicyStatus& status = out.emplace_back();
    status.key = key;
    status.generation = policy.generation;
    status.not_enforced = not_enforced(policy);
    const bool audit = is_audit(policy, store);
    for (const WorkloadKey& pod : publisher.selected_by(key)) {
      const auto object = view.pods.find(pod);
      if (object == view.pods.end()) continue;  // its deletion has not been published yet
      auto found = known.find(pod);
      if (found == known.end()) found = known.emplace(pod, status_of(pod, object->second, publisher, stream_of)).first;
      PodStatus& of_pod = status.pods.emplace_back(found->second);
      if (!audit || of_pod.state == PodEnforcement::unmeshed) continue;
      of_pod = {.pod = pod, .state = PodEnforcement::audit, .since = {}, .reason = {}};
    }
  }
  return out;
}

std::vector<WorkloadKey> unconnected_pods(const ClusterStore& store, const StreamOf& stream_of) {
  std::vector<WorkloadKey> out;
  for (const auto& [key, pod] : store.view().pods) {
    // One that is still pending runs nothing yet that could let anybody in.
    if (!pod.workload.meshed || pod.ended() || pod.phase == PodPhase::pending) continue;
    if (stream_of(key).acknowledged == nullptr) out.push_back(key);
  }
  return out;
}

std::string encode(const std::vector<PolicyStatus>& policies) {
  JsonWriter out;
  out.begin_object().key("policies").begin_array();
  for (const PolicyStatus& policy : policies) {
    out.begin_object().field("namespace", policy.key.ns).field("name", policy.key.name).field("generation", policy.generation);
    out.key("pods").begin_array();
    for (const PodStatus& pod : policy.pods) {
      out.begin_object().field("namespace", pod.pod.ns).field("name", pod.pod.name).field("state", name_of(pod.state));
      if (pod.since) out.field("since", utc(*pod.since));
      out.text("reason", pod.reason).end_object();
    }
    out.end_array().key("notEnforced").begin_array();
    for (const std::string& rule : policy.not_enforced) out.value(rule);
    out.end_array().end_object();
  }
  out.end_array().end_object();
  return out.take();
}

void InForceClock::changed(const Changes& changes, const ClusterStore& store, const Publisher& publisher, Time now) {
  if (changes.empty()) return;
  if (!std::exchange(started_, true)) return;
  for (const ObjectKey& key : changes.policies) {
    const auto policy = store.view().policies.find(key);
    if (policy == store.view().policies.end()) {
      pending_.erase(key);
      continue;
    }
    pending_.insert_or_assign(key, Edit{.seen = now,
                                        .generation = policy->second.generation,
                                        .audit = is_audit(policy->second, store),
                                        .waiting = publisher.selected_by(key)});
  }
}

std::vector<InForceClock::Settled> InForceClock::settle(Publisher& publisher, const StreamOf& stream_of, Time now) {
  std::vector<Settled> settled;
  for (auto it = pending_.begin(); it != pending_.end();) {
    auto& [key, edit] = *it;
    while (!edit.waiting.empty()) {
      const StreamState stream = stream_of(edit.waiting.back());
      const bool enforced = stream.connected && enforces(publisher.resources_of(edit.waiting.back()), stream);
      if (stream.connected && !enforced) break;
      if (enforced) ++edit.enforcing;
      edit.waiting.pop_back();
    }
    if (!edit.waiting.empty()) {
      ++it;
      continue;
    }
    if (edit.enforcing > 0) settled.push_back({key, edit.generation, edit.enforcing, edit.audit, now - edit.seen});
    it = pending_.erase(it);
  }
  return settled;
}

std::vector<ObjectKey> InForceClock::overdue(Time now, std::chrono::seconds patience) {
  std::vector<ObjectKey> out;
  for (auto& [key, edit] : pending_) {
    if (now - edit.seen >= patience && !std::exchange(edit.named_overdue, true)) out.push_back(key);
  }
  return out;
}

}  // namespace postern
