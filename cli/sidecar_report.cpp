#include "cli/sidecar_report.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "base/document_writer.hpp"
#include "cli/node_path.hpp"

namespace postern::cli {
namespace {

std::string sidecar_image(const Node& pod) {
  for (const Node& container : items_at(pod, {"spec", "initContainers"})) {
    if (text_at(container, {"name"}) == "postern-proxy") return text_at(container, {"image"});
  }
  return {};
}

// A pod has one stream; where two replicas tell of one (it has just moved), the one that is not behind counts.
std::map<std::string, const Node*> streams_of(const ClusterFacts& facts) {
  std::map<std::string, const Node*> out;
  for (const ReplicaFacts& replica : facts.replicas) {
    for (const Node& stream : items_at(replica.streams, {"streams"})) {
      const auto [at, added] = out.emplace(text_at(stream, {"namespace"}) + "/" + text_at(stream, {"pod"}), &stream);
      if (!added && integer_at(*at->second, {"behind_seconds"}) > 0) at->second = &stream;
    }
  }
  return out;
}

void look_at_stream(const Node& stream, SidecarReport& out) {
  out.connected = true;
  out.version = text_at(stream, {"version"});
  const std::string waiting = text_at(stream, {"waiting_for"});
  const std::string refusal = text_at(stream, {"refusal"});
  if (!waiting.empty()) {
    out.state = "waiting";
    out.reason = waiting;
    return;
  }
  out.policy_age = integer_at(stream, {"behind_seconds"});
  out.state = !refusal.empty() ? "refused" : *out.policy_age > 0 ? "behind" : "enforced";
  out.reason = refusal;
}

void look_at_itself(const ClusterFacts& facts, SidecarReport& out) {
  out.state = "disconnected";
  const auto found = facts.policy_ages.find(out.pod);
  if (found == facts.policy_ages.end()) {
    out.reason = "it was not asked";
  } else if (!found->second) {
    out.reason = found->second.error().text();
  } else {
    out.policy_age = std::llround(*found->second);
  }
}

}  // namespace

std::vector<SidecarReport> sidecars_of(const ClusterFacts& facts) {
  std::vector<SidecarReport> out;
  if (!facts.pods) return out;
  const auto streams = streams_of(facts);
  for (const Node& pod : *facts.pods) {
    if (!runs(pod) || !is_injected(pod)) continue;
    SidecarReport& sidecar = out.emplace_back();
    sidecar.pod = key_of(pod);
    sidecar.image = sidecar_image(pod);
    if (const auto stream = streams.find(sidecar.pod); stream != streams.end()) {
      look_at_stream(*stream->second, sidecar);
    } else {
      look_at_itself(facts, sidecar);
    }
  }
  std::sort(out.begin(), out.end(), [](const SidecarReport& a, const SidecarReport& b) { return a.pod < b.pod; });
  return out;
}

std::string control_version(const ClusterFacts& facts) {
  for (const ReplicaFacts& replica : facts.replicas) {
    if (std::string version = text_at(replica.streams, {"version"}); !version.empty()) return version;
  }
  return {};
}

Node sidecars_node(const std::vector<SidecarReport>& sidecars) {
  std::vector<Node> rows;
  for (const SidecarReport& one : sidecars) {
    rows.push_back(make_object({{"pod", make_text(one.pod)},
                                {"image", make_text(one.image)},
                                {"version", one.version.empty() ? Node{} : make_text(one.version)},
                                {"state", make_text(one.state)},
                                {"policyAgeSeconds", one.policy_age ? make_integer(*one.policy_age) : Node{}},
                                {"reason", one.reason.empty() ? Node{} : make_text(one.reason)}}));
  }
  return make_list(std::move(rows));
}

std::optional<double> gauge_in(std::string_view metrics, std::string_view name) {
  while (!metrics.empty()) {
    const auto end = std::min(metrics.find('\n'), metrics.size());
    const std::string_view line = metrics.substr(0, end);
    metrics.remove_prefix(std::min(end + 1, metrics.size()));
    if (!line.starts_with(name) || line.size() <= name.size() || line[name.size()] != ' ') continue;
    const std::string value(line.substr(name.size() + 1));
    char* parsed = nullptr;
    const double number = std::strtod(value.c_str(), &parsed);
    if (parsed == value.c_str() || !std::isfinite(number)) return std::nullopt;
    return number;
  }
  return std::nullopt;
}

}  // namespace postern::cli
