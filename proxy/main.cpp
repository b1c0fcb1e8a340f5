// postern-proxy: arguments -> Config -> Server::run().
#include <sys/resource.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/document_files.hpp"
#include "base/log.hpp"
#include "certs/private_key.hpp"
#include "proxy/config.hpp"
#include "proxy/redirect.hpp"
#include "proxy/server.hpp"

namespace postern {
namespace {

constexpr std::string_view help =
    "usage: postern-proxy --config FILE [options]\n"
    "       postern-proxy redirect install|remove|check [options]    (--help says more)\n"
    "\n"
    "The sidecar of one pod: authenticates peers with mutual TLS and SPIFFE identities, checks each connection against the\n"
    "pod's allow list, splices the bytes through and writes one access-log record.\n"
    "\n"
    "  --config FILE          read the configuration (YAML; docs/configuration.md)\n"
    "  --config-env NAME      the configuration itself, in this environment variable (as the injector gives it)\n"
    "  --policy-dir DIR       policies and topology as manifests; instead of policyDir\n"
    "  --drain-period TIME    after SIGTERM, such as 30s; instead of drainPeriod\n"
    "  --log-level LEVEL      debug, info, warning or error; instead of logLevel\n"
    "  --check-config         read and check the configuration, then exit\n"
    "  --print-config         print the configuration with every default and its meaning, then exit\n"
    "  --version              print the version, then exit\n"
    "  --help                 print this, then exit\n"
    "\n"
    "Signals: SIGTERM drains, a second one exits at once; SIGUSR1 reopens the access log.\n";

int fail(std::string_view message) {
  std::fprintf(stderr, "postern-proxy: %.*s\n", static_cast<int>(message.size()), message.data());
  return 2;
}

// As many descriptors as the pod allows: each connection takes two.
void raise_descriptor_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

int run(const std::vector<std::string_view>& arguments) {
  Config config;
  std::string overrides;  // as YAML, so that there is one parser for values
  std::string path;
  std::string variable;
  bool check = false;
  bool print = false;
  for (std::size_t i = 0; i < arguments.size(); ++i) {
    const std::string_view flag = arguments[i];
    if (flag == "--help" || flag == "-h") return std::fputs(help.data(), stdout) < 0 ? 1 : 0;
    if (flag == "--version") return std::puts("postern-proxy " POSTERN_VERSION) < 0 ? 1 : 0;
    if (flag == "--check-config") {
      check = true;
    } else if (flag == "--print-config") {
      print = true;
    } else if (flag == "--config" || flag == "--config-env" || flag == "--policy-dir" || flag == "--drain-period" ||
               flag == "--log-level") {
      if (++i == arguments.size()) return fail(std::string(flag) + " needs a value; see --help");
      const std::string value(arguments[i]);
      if (flag == "--config") path = value;
      if (flag == "--config-env") variable = value;
      if (flag == "--policy-dir") overrides += "policyDir: '" + value + "'\n";
      if (flag == "--drain-period") overrides += "drainPeriod: " + value + "\n";
      if (flag == "--log-level") overrides += "logLevel: " + value + "\n";
    } else {
      return fail("unknown argument " + std::string(flag) + "; see --help");
    }
  }
  if (!path.empty() && !variable.empty()) return fail("--config and --config-env are two sources of one configuration; give one of them");
  if (path.empty() && variable.empty() && !print) return fail("--config FILE is needed; --print-config prints one to start from");
  if (!variable.empty()) {
    const char* text = std::getenv(variable.c_str());
    if (text == nullptr) return fail("--config-env " + variable + ": there is no such environment variable");
    auto parsed = parse_config(text, "$" + variable);
    if (!parsed) return fail(parsed.error().text());
    config = std::move(*parsed);
  }
  if (!path.empty()) {
    const auto text = read_file(path, 1U << 20);
    if (!text) return fail(text.error().text());
    auto parsed = parse_config(*text, path);
    if (!parsed) return fail(parsed.error().text());
    config = std::move(*parsed);
  }
  if (!overrides.empty()) {
    auto parsed = parse_config(overrides, "command line", std::move(config));
    if (!parsed) return fail(parsed.error().text());
    config = std::move(*parsed);
  }
  if (print) return std::fputs(print_config(config).c_str(), stdout) < 0 ? 1 : 0;
  if (auto valid = validate(config); !valid) return fail(valid.error().text());
  if (check) return 0;

  if (auto forbidden = forbid_dumps(); !forbidden) return fail(forbidden.error().text());
  std::signal(SIGPIPE, SIG_IGN);  // splice(2) has no MSG_NOSIGNAL
  raise_descriptor_limit();
  Log log(config.log_level);
  auto server = Server::make(std::move(config), log);
  if (!server) return fail(server.error().text());
  return (*server)->run();
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
  if (!postern::wipe_key_memory()) return postern::fail("OpenSSL was in use before main");
  if (argc > 1 && std::string_view(argv[1]) == "redirect") return postern::redirect_main(argc - 1, argv + 1);
  return postern::run({argv + 1, argv + argc});
}
