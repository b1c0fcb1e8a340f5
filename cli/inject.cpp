// posternctl inject: what the webhook would do to the pods of these manifests, before there is a cluster.
#include <iostream>
#include <string>

#include "base/document_files.hpp"
#include "base/document_writer.hpp"
#include "cli/command.hpp"
#include "control/manifest_injection.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "inject";
constexpr std::size_t most_bytes = 64U << 20;
constexpr std::size_t most_settings_bytes = 1U << 20;

Result<InjectionSettings> read_settings(const Arguments& arguments) {
  InjectionSettings settings;
  if (const auto path = arguments.get("--settings")) {
    const auto text = read_file(std::string(*path), most_settings_bytes);
    if (!text) return text.error();
    auto parsed = injection_settings_table().parse(*text, *path, std::move(settings));
    if (!parsed) return parsed.error();
    settings = *std::move(parsed);
  }
  if (const auto image = arguments.get("--image")) settings.image = *image;
  if (const auto name = arguments.get("--trust-domain")) {
    auto domain = TrustDomain::parse(*name);
    if (!domain) return Error{domain.error().text(), "--trust-domain"};
    settings.trust_domain = *std::move(domain);
  }
  auto roots = read_file(std::string(*arguments.get("--trust-roots")), most_settings_bytes);
  if (!roots) return roots.error();
  settings.trust_roots = *std::move(roots);
  if (auto valid = validate(settings); !valid) return valid.error();
  return settings;
}

std::string text_of(const std::vector<Document>& documents, bool as_json) {
  std::string out;
  for (const Document& document : documents) {
    if (as_json) {
      out += json_text(document.root) + "\n";
    } else {
      if (!out.empty()) out += "---\n";
      out += yaml_text(document.root);
    }
  }
  return out;
}

int run(const Arguments& arguments) {
  if (arguments.has("--print-settings")) {
    std::cout << injection_settings_table().print({});
    return exit_ok;
  }
  const auto file = arguments.get("--file");
  if (!file) return bad_input(command_name, Error{"the option --file PATH is missing", {}});
  if (!arguments.has("--trust-roots")) return bad_input(command_name, Error{"the option --trust-roots FILE is missing", {}});
  const auto settings = read_settings(arguments);
  if (!settings) return bad_input(command_name, settings.error());
  auto documents = read_documents(std::string(*file), {.bytes = most_bytes, .nodes = 5'000'000});
  if (!documents) return bad_input(command_name, documents.error());
  std::vector<ManifestInjection> done;
  for (Document& document : *documents) {
    if (auto injected = inject_manifest(document, *settings, done); !injected) {
      std::cerr << "posternctl inject: denied: " << injected.error().text() << "\n";
      return exit_failed;
    }
  }
  const std::string_view output = arguments.get("--output", "yaml");
  if (output != "yaml" && output != "json") return bad_input(command_name, Error{"--output: expected yaml or json", {}});
  std::cout << text_of(*documents, output == "json");
  for (const ManifestInjection& one : done) {
    std::cerr << one.object << ": " << one.outcome << "\n";
    for (const std::string& warning : one.warnings) std::cerr << "  warning: " << warning << "\n";
  }
  return exit_ok;
}

}  // namespace

Command inject_command() {
  return {.name = command_name,
          .summary = "print manifests with the sidecar in their pods, as the webhook would make them",
          .description =
              "Reads Pods, Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs, CronJobs and Lists of them; prints every object, with "
              "its\n"
              "comments gone and nothing else changed but the pods. Says on standard error what became of each. Exit 1: the webhook\n"
              "would deny one of the pods; nothing is printed.",
          .options = {{"--file", "PATH", "a YAML or JSON file, or a directory of them"},
                      {"--trust-roots", "FILE", "PEM: the root certificates that the sidecars begin with"},
                      {"--settings", "FILE", "the injection settings of the mesh (docs/injection.md)"},
                      {"--trust-domain", "NAME", "instead of trustDomain of the settings"},
                      {"--image", "IMAGE", "instead of image of the settings"},
                      {"--output", "FORMAT", "yaml (default) or json"},
                      {"--print-settings", "", "print the settings with every default and its meaning, then exit"}},
          .run = run};
}

}  // namespace postern::cli
