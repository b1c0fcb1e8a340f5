#include "cli/policy_report.hpp"

#include <algorithm>
#include <array>

#include "base/document.hpp"
#include "base/document_writer.hpp"
#include "base/log.hpp"
#include "cli/json_text.hpp"

namespace postern::cli {
namespace {

constexpr DocumentLimits answer_limits{.bytes = 256U << 20, .nodes = 20'000'000, .depth = 16, .documents = 1, .scalar_bytes = 64U << 10};

// The better known first: what one replica says of its own stream outweighs that another has no stream.
constexpr std::array<std::string_view, 5> states{"enforced", "audit", "unmeshed", "lagging", "disconnected"};

std::size_t rank_of(std::string_view state) {
  return static_cast<std::size_t>(std::find(states.begin(), states.end(), state) - states.begin());
}

std::string text_in(const Node& node, std::string_view field) {
  const Node* value = node.find(field);
  return value != nullptr && !value->is(Node::Kind::null) ? value->scalar : std::string();
}

std::int64_t integer_in(const Node& node, std::string_view field) {
  const Node* value = node.find(field);
  return value != nullptr && value->is(Node::Kind::integer) ? value->integer : 0;
}

const std::vector<Node>& items_in(const Node& node, std::string_view field) {
  static const std::vector<Node> none;
  const Node* value = node.find(field);
  return value != nullptr ? value->items : none;
}

PolicyReport policy_of(const Node& node) {
  PolicyReport policy;
  policy.generation = integer_in(node, "generation");
  for (const Node& pod : items_in(node, "pods")) {
    policy.pods[text_in(pod, "namespace") + "/" + text_in(pod, "name")] = {text_in(pod, "state"), text_in(pod, "since"),
                                                                           text_in(pod, "reason")};
  }
  for (const Node& rule : items_in(node, "notEnforced")) policy.not_enforced.push_back(rule.scalar);
  return policy;
}

void merge(PolicyReport& into, PolicyReport&& from) {
  if (from.generation > into.generation) {
    into = std::move(from);
  } else if (from.generation == into.generation) {
    for (auto& [name, pod] : from.pods) {
      const auto [known, added] = into.pods.try_emplace(name, pod);
      if (!added && rank_of(pod.state) < rank_of(known->second.state)) known->second = std::move(pod);
    }
  }
}

std::string described(const std::string& name, const PodReport& pod) {
  return name + " " + pod.state + (pod.reason.empty() ? "" : " (" + pod.reason + ")");
}

}  // namespace

Result<void> add_answer(Report& report, std::string_view body) {
  const auto document = parse_json(body, "answer", answer_limits);
  if (!document) return document.error();
  const Node* synced = document->root.find("synced");
  if (synced == nullptr || document->root.find("policies") == nullptr) return Error{"the answer is not that of postern-control", ""};
  if (!synced->boolean) return Error{"it has not read the cluster yet", ""};
  ++report.replicas;
  report.lagging_streams += static_cast<std::uint64_t>(integer_in(document->root, "laggingStreams"));
  for (const Node& node : items_in(document->root, "policies")) {
    const std::string name = text_in(node, "namespace") + "/" + text_in(node, "name");
    const auto known = report.policies.find(name);
    if (known == report.policies.end()) {
      report.policies.emplace(name, policy_of(node));
    } else {
      merge(known->second, policy_of(node));
    }
  }
  return {};
}

Result<void> add_unconnected(Report& report, std::string_view body) {
  const auto document = parse_json(body, "answer", answer_limits);
  if (!document) return document.error();
  const Node* synced = document->root.find("synced");
  if (synced == nullptr || document->root.find("pods") == nullptr) return Error{"the answer is not that of postern-control", ""};
  if (!synced->boolean) return Error{"it has not read the cluster yet", ""};
  std::set<std::string> here;
  for (const Node& pod : items_in(document->root, "pods")) here.insert(pod.scalar);
  if (report.unconnected) {
    std::erase_if(*report.unconnected, [&](const std::string& pod) { return !here.contains(pod); });
  } else {
    report.unconnected = std::move(here);
  }
  return {};
}

std::vector<std::string> missing_of(const Report& report, const Question& question) {
  std::vector<std::string> missing;
  if (report.replicas == 0) return {"no replica of the control plane has answered"};
  const auto named = report.policies.find(question.policy);
  if (question.absent) {
    if (named != report.policies.end()) missing.push_back(question.policy + ": still there");
    if (report.lagging_streams > 0)
      missing.push_back(std::to_string(report.lagging_streams) + " sidecars have not acknowledged their newest update");
    if (!report.unconnected) missing.emplace_back("no replica has said which sidecars are connected");
    for (const std::string& pod : report.unconnected.value_or(std::set<std::string>{})) {
      missing.push_back(pod + " disconnected: its sidecar is connected to none of these replicas, and keeps what it has");
    }
    return missing;
  }
  if (!question.policy.empty() && named == report.policies.end())
    missing.push_back(question.policy + ": the control plane knows no such policy");
  for (const auto& [name, policy] : report.policies) {
    if (question.generation && policy.generation < *question.generation) {
      missing.push_back(name + ": generation " + std::to_string(policy.generation) + " is the newest that the control plane has seen");
    }
    for (const auto& [pod, status] : policy.pods) {
      const bool blocks = status.state == "lagging" || status.state == "disconnected" || (question.strict && status.state == "unmeshed") ||
                          rank_of(status.state) == states.size();
      if (blocks) missing.push_back(name + ": " + described(pod, status));
    }
  }
  return missing;
}

std::string report_table(const Report& report) {
  if (report.policies.empty()) return "no policies\n";
  std::vector<Node> rows;
  std::string notes;
  for (const auto& [name, policy] : report.policies) {
    std::string others;
    std::size_t enforced = 0;
    for (const auto& [pod, status] : policy.pods) {
      if (status.state == "enforced") ++enforced;
      if (status.state != "enforced") others += (others.empty() ? "" : "; ") + described(pod, status);
    }
    rows.push_back(make_object({{"policy", make_text(name)},
                                {"generation", make_integer(policy.generation)},
                                {"enforced", make_text(std::to_string(enforced) + "/" + std::to_string(policy.pods.size()))},
                                {"others", make_text(others)}}));
    for (const std::string& rule : policy.not_enforced) {
      std::string line;
      append_json_string(line, rule);
      notes += name + ": not enforced by the proxy: " + line.substr(1, line.size() - 2) + "\n";
    }
  }
  return tabulated(make_list(std::move(rows))) + notes;
}

std::string report_json(const Report& report) {
  std::vector<Node> policies;
  for (const auto& [name, policy] : report.policies) {
    std::vector<Node> pods;
    for (const auto& [pod, status] : policy.pods) {
      std::vector<std::pair<std::string, Node>> fields{{"pod", make_text(pod)}, {"state", make_text(status.state)}};
      if (!status.since.empty()) fields.emplace_back("since", make_text(status.since));
      if (!status.reason.empty()) fields.emplace_back("reason", make_text(status.reason));
      pods.push_back(make_object(std::move(fields)));
    }
    std::vector<Node> rules;
    for (const std::string& rule : policy.not_enforced) rules.push_back(make_text(rule));
    policies.push_back(make_object({{"policy", make_text(name)},
                                    {"generation", make_integer(policy.generation)},
                                    {"pods", make_list(std::move(pods))},
                                    {"notEnforced", make_list(std::move(rules))}}));
  }
  return indented(make_object({{"policies", make_list(std::move(policies))}}));
}

}  // namespace postern::cli
