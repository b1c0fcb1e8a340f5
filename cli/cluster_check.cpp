#include "cli/cluster_check.hpp"

#include <algorithm>
#include <iostream>

#include "base/json_writer.hpp"
#include "cli/cluster_findings.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "check";

using Level = Finding::Level;

std::string table_of(const std::vector<Finding>& findings) {
  std::string out;
  std::string_view topic;
  for (const Finding& finding : findings) {
    if (finding.topic != topic) out += (topic.empty() ? "" : "\n") + finding.topic + "\n";
    topic = finding.topic;
    const std::string level(name_of(finding.level));
    out += "  " + level + std::string(9 - level.size(), ' ') + finding.text + "\n";
    // A remedy of several lines is an object to apply.
    for (std::size_t begin = 0; begin < finding.remedy.size();) {
      const auto end = std::min(finding.remedy.find('\n', begin), finding.remedy.size());
      out += (begin == 0 ? "           remedy: " : "                   ") + finding.remedy.substr(begin, end - begin) + "\n";
      begin = end + 1;
    }
  }
  return out;
}

std::string json_of(const std::vector<Finding>& findings) {
  JsonWriter json;
  json.begin_object().key("findings").begin_array();
  for (const Finding& finding : findings) {
    json.begin_object().field("level", name_of(finding.level)).field("topic", finding.topic).field("text", finding.text);
    json.text("remedy", finding.remedy).end_object();
  }
  json.end_array().end_object();
  return json.take() + "\n";
}

std::size_t count_of(const std::vector<Finding>& findings, Level level) {
  return static_cast<std::size_t>(
      std::count_if(findings.begin(), findings.end(), [&](const Finding& finding) { return finding.level == level; }));
}

}  // namespace

int check_cluster(const Arguments& arguments) {
  const std::string_view output = arguments.get("--output", "table");
  if (output != "json" && output != "table") return bad_input(command_name, {"--output: expected table or json", ""});
  auto config = find_kubeconfig(arguments.get("--kubeconfig", ""));
  if (!config) return bad_input(command_name, config.error());
  ClusterApi api(*std::move(config));
  const bool pre = arguments.has("--pre");
  const ClusterFacts facts = gather_facts(api, std::string(arguments.get("--namespace", "postern-system")), pre);
  if (!facts.version) {
    std::cerr << "posternctl check: the API server cannot be asked: " << facts.version.error().text() << "\n";
    return exit_failed;
  }
  const std::vector<Finding> findings = pre ? findings_before(facts) : findings_after(facts);
  const std::size_t errors = count_of(findings, Level::error);
  if (output == "json") {
    std::cout << json_of(findings);
  } else {
    std::cout << table_of(findings) << "\n" << errors << " error(s), " << count_of(findings, Level::warning) << " warning(s)\n";
  }
  return errors == 0 ? exit_ok : exit_failed;
}

}  // namespace postern::cli
