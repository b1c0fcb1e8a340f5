// posternctl check: are these manifests readable, and do they mean what their author thinks?
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "authz/cluster.hpp"
#include "cli/command.hpp"
#include "cli/control_check.hpp"
#include "cli/manifest_files.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "check";

bool selects_anyone(const NetworkPolicy& policy, const ClusterView& view) {
  return std::any_of(view.pods.begin(), view.pods.end(), [&](const auto& entry) {
    const Pod& pod = entry.second;
    return pod.workload.ns == policy.ns && !pod.workload.host_network && !pod.ended() && matches(policy.pod_selector, pod.labels);
  });
}

std::string counted(std::size_t count, std::string_view what) {
  const bool ends_in_y = what.ends_with('y');
  const std::string many = ends_in_y ? std::string(what.substr(0, what.size() - 1)) + "ies" : std::string(what) + "s";
  return std::to_string(count) + " " + (count == 1 ? std::string(what) : many);
}

int run_control(const Arguments& arguments) {
  constexpr int patience_ms = 3000;
  std::vector<ReachReport> reports;
  for (const std::string_view address : arguments.all("--control")) reports.push_back(try_to_reach(std::string(address), patience_ms));
  std::cout << reach_text(reports);
  return any_reachable(reports) ? exit_ok : exit_failed;
}

int run(const Arguments& arguments) {
  const bool has_manifests = arguments.get("--manifests").has_value();
  if (has_manifests == arguments.has("--control")) return bad_input(command_name, {"expected either --manifests or --control", ""});
  if (!has_manifests) return run_control(arguments);
  const auto manifests = read_manifests(*arguments.get("--manifests"));
  if (!manifests) return bad_input(command_name, manifests.error());
  const ClusterView& view = manifests->cluster;
  for (const Warning& warning : manifests->warnings) std::cout << "warning: " << warning.text() << "\n";
  std::size_t warnings = manifests->warnings.size();
  for (const auto& [key, policy] : view.policies) {
    if (selects_anyone(policy, view)) continue;
    std::cout << "warning: the NetworkPolicy " << key.text() << " selects no pod of these manifests: " << text_of(policy.pod_selector)
              << "\n";
    ++warnings;
  }
  std::cout << counted(view.policies.size(), "policy") << ", " << counted(view.pods.size(), "pod") << ", "
            << counted(view.namespaces.size(), "namespace") << ", " << counted(view.services.size(), "service") << " read; "
            << counted(warnings, "warning") << "\n";
  return exit_ok;
}

}  // namespace

Command check_command() {
  return {
      .name = command_name,
      .summary = "check manifests as strictly as the API server, or the way to the control plane",
      .description =
          "Refuses (exit 2) what the Kubernetes API server would refuse, naming file, line and field. Warns of what is valid, but\n"
          "may not mean what its author thinks, such as a policy that selects no pod.\n"
          "\n"
          "With --control: whether the control plane's stream can be reached from here (exit 0), and if not (exit 1), the likely cause "
          "and,\n"
          "where a network plugin cuts the sidecar off, the policy to add. Run it in the sidecar's container, as the sidecar's user: what\n"
          "others connect to in the pod goes through the sidecar.",
      .options = {{"--manifests", "PATH", "a YAML or JSON file, or a directory of them"},
                  {"--control", "HOST:PORT", "of control.addresses in the sidecar's configuration; may be repeated", false, true}},
      .run = run};
}

}  // namespace postern::cli
