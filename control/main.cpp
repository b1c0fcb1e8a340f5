// postern-control: arguments -> ControlConfig -> Control::run().
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include "base/document_files.hpp"
#include "base/log.hpp"
#include "certs/private_key.hpp"
#include "control/config.hpp"
#include "control/control.hpp"

namespace postern {
namespace {

constexpr std::string_view help =
    "usage: postern-control --config FILE [options]\n"
    "\n"
    "The control plane: watches the Kubernetes API, compiles NetworkPolicies into allow lists, keeps every sidecar's copy right\n"
    "over one stream each, and knows which policy is enforced where. Any number of replicas.\n"
    "\n"
    "  --config FILE          read the configuration (YAML; docs/control.md)\n"
    "  --kubeconfig FILE      how to reach the API server; instead of kubeconfig. Without: the pod's service account\n"
    "  --log-level LEVEL      debug, info, warning or error; instead of logLevel\n"
    "  --check-config         read and check the configuration, then exit\n"
    "  --print-config         print the configuration with every default and its meaning, then exit\n"
    "  --version              print the version, then exit\n"
    "  --help                 print this, then exit\n"
    "\n"
    "Signals: SIGTERM says goodbye to every sidecar and exits; they go to another replica, and enforce what they have meanwhile.\n";

int fail(std::string_view message) {
  std::fprintf(stderr, "postern-control: %.*s\n", static_cast<int>(message.size()), message.data());
  return 2;
}

// As many descriptors as allowed: each stream takes one.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int run(const std::vector<std::string_view>& arguments) {
  ControlConfig config;
  std::string overrides;  // as YAML, so that there is one parser for values
  std::string path;
  bool check = false;
  bool print = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view flag = arguments[i];
    if (flag == "--help" || flag == "-h") return std::fputs(help.data(), stdout) < 0 ? 1 : 0;
    if (flag == "--version") return std::puts("postern-control " POSTERN_VERSION) < 0 ? 1 : 0;
    if (flag == "--check-config") {
      check = true;
    } else if (flag == "--print-config") {
      print = true;
    } else if (flag == "--config" || flag == "--kubeconfig" || flag == "--log-level") {
      if (++i == arguments.size()) return fail(std::string(flag) + " needs a value; see --help");
      const std::string value(arguments[i]);
      if (flag == "--config") path = value;
      if (flag == "--kubeconfig") overrides += "kubeconfig: '" + value + "'\n";
      if (flag == "--log-level") overrides += "logLevel: " + value + "\n";
    } else {
      return fail("unknown argument " + std::string(flag) + "; see --help");
    }
  }
  if (path.empty() && !print) return fail("--config FILE is needed; --print-config prints one to start from");
  const auto& table = control_config_table();
  if (!path.empty()) {
    const auto text = read_file(path, 1U << 20);
    if (!text) return fail(text.error().text());
    auto parsed = table.parse(*text, path, std::move(config));
    if (!parsed) return fail(parsed.error().text());
    config = *std::move(parsed);
  }
  if (!overrides.empty()) {
    auto parsed = table.parse(overrides, "command line", std::move(config));
    if (!parsed) return fail(parsed.error().text());
    config = *std::move(parsed);
  }
  if (print) return std::fputs(table.print(config).c_str(), stdout) < 0 ? 1 : 0;
  if (auto valid = validate(config); !valid) return fail(valid.error().text());
  if (check) return 0;

  if (auto forbidden = forbid_dumps(); !forbidden) return fail(forbidden.error().text());
  std::signal(SIGPIPE, SIG_IGN);  // OpenSSL writes with write(2)
  raise_descriptor_limit();
  Log log(config.log_level);
  auto control = Control::make(std::move(config), log);
  if (!control) return fail(control.error().text());
  return (*control)->run();
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
  if (!postern::wipe_key_memory()) return postern::fail("OpenSSL was in use before main");
  return postern::run({argv + 1, argv + argc});
}
