// posternctl check: are these manifests readable, and do they mean what their author thinks?
#include <algorithm>
#include <iostream>
#include <string>

#include "authz/cluster.hpp"
#include "cli/command.hpp"
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

int run(const Arguments& arguments) {
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
  return {.name = command_name,
          .summary = "read manifests as strictly as the API server, and warn of what may surprise",
          .description =
              "Refuses (exit 2) what the Kubernetes API server would refuse, naming file, line and field. Warns of what is valid, but\n"
              "may not mean what its author thinks, such as a policy that selects no pod.",
          .options = {{"--manifests", "PATH", "a YAML or JSON file, or a directory of them", true}},
          .run = run};
}

}  // namespace postern::cli
