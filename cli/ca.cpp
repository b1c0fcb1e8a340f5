// posternctl ca: the built-in CA: make an authority beforehand, rotate it, and say how far a rotation is.

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <string>
#include <thread>

#include "base/config_values.hpp"
#include "base/document.hpp"
#include "base/json_writer.hpp"
#include "certs/authority.hpp"
#include "cli/admin_client.hpp"
#include "cli/command.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "ca";
constexpr std::string_view default_control = "127.0.0.1:15011";
constexpr auto poll_interval = std::chrono::milliseconds{200};
using Clock = std::chrono::steady_clock;

std::vector<std::string> addresses_of(const Arguments& arguments) {
  std::vector<std::string> out;
  for (const std::string_view given : arguments.all("--control")) out.emplace_back(given);
  const char* from_environment = std::getenv("POSTERN_CONTROL");
  if (out.empty()) out.emplace_back(from_environment != nullptr && *from_environment != '\0' ? from_environment : default_control);
  return out;
}

Result<std::chrono::milliseconds> duration_of(const Arguments& arguments, std::string_view option, std::string_view fallback) {
  Node node;
  node.kind = Node::Kind::string;
  node.scalar = arguments.get(option, fallback);
  auto value = config_value::read_duration(node, false, std::chrono::milliseconds{1});
  if (!value) return Error{value.error().message, std::string(option)};
  return value;
}

std::string text_of(const Node& node, std::string_view name) {
  const Node* field = node.find(name);
  return field == nullptr ? std::string() : field->scalar;
}

// What the first replica that answers says; else why the last one did not.
Result<Document> ask(const std::vector<std::string>& addresses, std::string_view method, std::string_view path, int expected) {
  Error last{"no address", "--control"};
  for (const std::string& address : addresses) {
    const auto reply = ask_control(address, method, path);
    if (!reply) {
      last = reply.error();
      continue;
    }
    auto document = parse_json(reply->body, address);
    if (!document) {
      last =
          Error{"answered " + std::to_string(reply->status) + ", and no JSON; is this a replica's health port or admin socket?", address};
      continue;
    }
    if (reply->status == expected) return document;
    last = Error{text_of(document->root, "error"), address};
    if (method != "GET") return last;  // it has been decided there
  }
  return last;
}

void print_status(const Node& status) {
  std::cout << "trust domain    " << text_of(status, "trustDomain") << "\n"
            << "source          " << text_of(status, "source") << "\n"
            << "phase           " << text_of(status, "phase") << " since " << text_of(status, "since") << "\n"
            << "signing with    " << text_of(status, "signingSerial") << ", until " << text_of(status, "expires") << "\n"
            << "SVID lifetime   " << text_of(status, "svidTtlSeconds") << " s\n"
            << "trust bundle    sequence " << text_of(status, "bundleSequence") << "\n";
  if (const Node* reports = status.find("reports"); reports != nullptr) {
    for (const Node& report : reports->items) {
      std::cout << "  " << text_of(report, "replica") << " publishes " << text_of(report, "bundleSequence") << ", "
                << text_of(report, "lagging") << " sidecar(s) lag, said at " << text_of(report, "at") << "\n";
    }
  }
  if (const Node* lagging = status.find("lagging"); lagging != nullptr && !lagging->items.empty()) {
    std::cout << "waiting for    ";
    for (const Node& pod : lagging->items) std::cout << " " << pod.scalar;
    std::cout << "\n";
  }
  if (const std::string error = text_of(status, "error"); !error.empty()) std::cout << "error           " << error << "\n";
}

int show_status(const Arguments& arguments) {
  const auto status = ask(addresses_of(arguments), "GET", "/ca", 200);
  if (!status) {
    std::cerr << "posternctl ca: " << status.error().text() << "\n";
    return exit_failed;
  }
  print_status(status->root);
  return text_of(status->root, "error").empty() ? exit_ok : exit_failed;
}

int rotate(const Arguments& arguments) {
  const auto deadline = duration_of(arguments, "--deadline", "3h");
  if (!deadline) return bad_input(command_name, deadline.error());
  const std::vector<std::string> addresses = addresses_of(arguments);
  const auto before = ask(addresses, "GET", "/ca", 200);
  const auto begun = before ? ask(addresses, "POST", "/ca/rotate", 202) : before;
  if (!begun) {
    std::cerr << "posternctl ca: " << begun.error().text() << "\n";
    return exit_failed;
  }
  std::cout << "The rotation has begun; 'posternctl ca status' says how far it is.\n" << std::flush;
  if (!arguments.has("--wait")) return exit_ok;
  const std::string old_serial = text_of(before->root, "signingSerial");
  const auto until = Clock::now() + *deadline;
  while (Clock::now() < until) {
    const auto status = ask(addresses, "GET", "/ca", 200);
    if (status && text_of(status->root, "phase") == "steady" && text_of(status->root, "signingSerial") != old_serial) {
      std::cout << "The old root is withdrawn.\n";
      return exit_ok;
    }
    std::this_thread::sleep_for(poll_interval);
  }
  std::cerr << "posternctl ca: not at its end within " << config_value::print_duration(*deadline) << "; it goes on by itself\n";
  return exit_failed;
}

// A Secret in the form of kubernetes.io/tls, which authority.givenSecret names.
int init(const Arguments& arguments) {
  const auto domain = TrustDomain::parse(arguments.get("--trust-domain", ""));
  if (!domain) return bad_input(command_name, {domain.error().message, "--trust-domain"});
  const auto lifetime = duration_of(arguments, "--lifetime", "8760h");
  if (!lifetime) return bad_input(command_name, lifetime.error());
  const auto made =
      Authority::create(*domain, std::chrono::duration_cast<std::chrono::seconds>(*lifetime), std::chrono::system_clock::now());
  if (!made) return bad_input(command_name, made.error());
  if (const auto path = arguments.get("--roots")) {
    std::ofstream file{std::string(*path)};
    file << made->roots;
    if (!file.flush()) return bad_input(command_name, {"cannot be written", std::string(*path)});
  }
  JsonWriter json;
  json.begin_object().field("apiVersion", "v1").field("kind", "Secret").field("type", "kubernetes.io/tls");
  json.key("metadata").begin_object().field("name", arguments.get("--name", "postern-ca"));
  json.field("namespace", arguments.get("--namespace", "postern-system")).end_object();
  json.key("stringData").begin_object().field("tls.crt", made->chain).field("tls.key", made->key).field("ca.crt", made->roots);
  std::cout << json.end_object().end_object().take() << "\n";
  return exit_ok;
}

int run(const Arguments& arguments) {
  const std::string_view action = arguments.positionals().empty() ? std::string_view() : arguments.positionals().front();
  if (action == "status") return show_status(arguments);
  if (action == "rotate") return rotate(arguments);
  if (action == "init") return init(arguments);
  return bad_input(command_name, {"expected init, rotate or status", ""});
}

}  // namespace

Command ca_command() {
  return {
      .name = command_name,
      .summary = "make, rotate and look at the built-in CA",
      .description =
          "init    prints a Secret with a new authority, key included, to apply before postern-control starts with authority.givenSecret.\n"
          "        Without it, postern-control makes one by itself.\n"
          "rotate  begins an overlapped rotation: the new root is published, every sidecar acknowledges it, the new authority signs, and\n"
          "        the old root is withdrawn when the last SVID below it has ended. Needs a replica's admin socket.\n"
          "status  says what signs, how far a rotation is, and what it waits for.",
      .options = {{"--control", "ADDRESS",
                   "HOST:PORT of a replica's health port, or its admin socket's path; else $POSTERN_CONTROL, else 127.0.0.1:15011", false,
                   true},
                  {"--wait", "", "rotate: until the old root is withdrawn"},
                  {"--deadline", "TIME", "rotate: how long to wait; 3h"},
                  {"--trust-domain", "NAME", "init: of the mesh"},
                  {"--lifetime", "TIME", "init: of the authority; 8760h"},
                  {"--namespace", "NAME", "init: of the Secret; postern-system"},
                  {"--name", "NAME", "init: of the Secret; postern-ca"},
                  {"--roots", "FILE", "init: the root alone is written there, too"}},
      .positionals = "init|rotate|status",
      .most_positionals = 1,
      .run = run};
}

}  // namespace postern::cli
