#include "cli/cluster_check.hpp"

#include <algorithm>
#include <iostream>

#include "base/document_writer.hpp"
#include "cli/cluster_findings.hpp"
#include "cli/json_text.hpp"
#include "cli/sidecar_report.hpp"

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

std::string json_of(const std::vector<Finding>& findings, const std::vector<SidecarReport>& sidecars) {
  std::vector<Node> rows;
  for (const Finding& finding : findings) {
    Node& row = rows.emplace_back(make_object(
        {{"level", make_text(name_of(finding.level))}, {"topic", make_text(finding.topic)}, {"text", make_text(finding.text)}}));
    if (!finding.remedy.empty()) row.fields.emplace_back("remedy", make_text(finding.remedy));
  }
  return json_text(make_object({{"findings", make_list(std::move(rows))}, {"sidecars", sidecars_node(sidecars)}})) + "\n";
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
  const std::vector<SidecarReport> sidecars = pre ? std::vector<SidecarReport>{} : sidecars_of(facts);
  if (output == "json") {
    std::cout << json_of(findings, sidecars);
  } else {
    if (arguments.has("--sidecars")) std::cout << tabulated(sidecars_node(sidecars)) << "\n";
    std::cout << table_of(findings) << "\n" << errors << " error(s), " << count_of(findings, Level::warning) << " warning(s)\n";
  }
  return errors == 0 ? exit_ok : exit_failed;
}

}  // namespace postern::cli
