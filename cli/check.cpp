// posternctl check: does the mesh work in this cluster? Are these manifests readable, and do they mean what their author thinks?
#include <algorithm>
#include <iostream>
#include <string>
#include <vector>

#include "authz/cluster.hpp"
#include "cli/cluster_check.hpp"
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

// Whether the pod's sidecar takes SPIFFE mTLS without Postern's ALPN at any port: callers of other trust domains speak no other.
bool takes_spiffe(const Pod& pod, const ClusterView& view) {
  const auto is_spiffe = [](const auto& entry) { return entry.second == MtlsMode::spiffe; };
  if (std::any_of(pod.workload.port_mtls.begin(), pod.workload.port_mtls.end(), is_spiffe)) return true;
  const auto ns = view.namespaces.find(pod.workload.ns);
  const auto inherited = ns == view.namespaces.end() ? std::nullopt : ns->second.mtls;
  return (pod.mtls ? pod.mtls : inherited) == MtlsMode::spiffe;
}

// A pod that the policy selects, and that hears nobody of those whom it lists.
const Pod* deaf_pod(const NetworkPolicy& policy, const ClusterView& view) {
  for (const auto& [key, pod] : view.pods) {
    const bool selected = key.ns == policy.ns && pod.workload.meshed && !pod.workload.host_network && !pod.ended() &&
                          matches(policy.pod_selector, pod.labels);
    if (selected && !takes_spiffe(pod, view)) return &pod;
  }
  return nullptr;
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
  const bool has_manifests = arguments.has("--manifests");
  const bool has_control = arguments.has("--control");
  const bool asks_cluster = arguments.has("--pre") || arguments.has("--kubeconfig") || arguments.has("--namespace") ||
                            arguments.has("--output") || arguments.has("--sidecars");
  if (has_manifests + has_control + asks_cluster > 1)
    return bad_input(command_name, {"--manifests, --control and the options for a cluster exclude each other", ""});
  if (has_control) return run_control(arguments);
  if (!has_manifests) return check_cluster(arguments);
  const auto manifests = read_manifests(*arguments.get("--manifests"));
  if (!manifests) return bad_input(command_name, manifests.error());
  const ClusterView& view = manifests->cluster;
  for (const Warning& warning : manifests->warnings) std::cout << "warning: " << warning.text() << "\n";
  std::size_t warnings = manifests->warnings.size();
  for (const auto& [key, policy] : view.policies) {
    const Pod* const deaf = policy.allow_spiffe_ids.empty() ? nullptr : deaf_pod(policy, view);
    if (deaf != nullptr) {
      std::cout << "warning: the NetworkPolicy " << key.text() << " allows SPIFFE IDs that are no pods', and the pod " << deaf->workload.ns
                << "/" << deaf->workload.name << " takes SPIFFE mTLS at no port; put postern.dev/mtls: \"<port>=spiffe\" on it\n";
      ++warnings;
    }
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
      .summary = "check the cluster and the mesh in it; or manifests, or the way to the control plane",
      .description =
          "Asks the Kubernetes API, and through it the control plane: versions, permissions, webhooks, certificates, namespaces whose "
          "pods\n"
          "would be refused or cut off, sidecars that are missing, old or without a stream, and policies that are not in force. Each\n"
          "finding comes with its remedy. Nothing is changed. Exit 0: no finding is an error; 1: one is; 2: the command line.\n"
          "With --pre: before the installation, whether it would work.\n"
          "\n"
          "With --manifests: refuses (exit 2) what the Kubernetes API server would refuse, naming file, line and field. Warns of what is\n"
          "valid, but may not mean what its author thinks, such as a policy that selects no pod.\n"
          "\n"
          "With --control: whether the control plane's stream can be reached from here (exit 0), and if not (exit 1), the likely cause "
          "and,\n"
          "where a network plugin cuts the sidecar off, the policy to add. Run it in the sidecar's container, as the sidecar's user: what\n"
          "others connect to in the pod goes through the sidecar.",
      .options = {{"--pre", "", "before the installation"},
                  {"--kubeconfig", "FILE", "else $KUBECONFIG, else the pod's service account, else ~/.kube/config"},
                  {"--namespace", "NAME", "of the control plane; postern-system"},
                  {"--output", "FORMAT", "table (default) or json; json lists the sidecars, too"},
                  {"--sidecars", "", "list every injected pod: its sidecar's version, policy age and state"},
                  {"--manifests", "PATH", "a YAML or JSON file, or a directory of them"},
                  {"--control", "HOST:PORT", "of control.addresses in the sidecar's configuration; may be repeated", false, true}},
      .run = run};
}

}  // namespace postern::cli
