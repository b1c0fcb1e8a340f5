// posternctl proxy: ask a running sidecar what it does, and tell it to drain or to log more.
#include <algorithm>
#include <array>
#include <iostream>
#include <string>

#include "base/document.hpp"
#include "base/log.hpp"
#include "cli/admin_client.hpp"
#include "cli/command.hpp"
#include "cli/json_text.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "proxy";
constexpr DocumentLimits reply_limits{.bytes = 256U << 20, .nodes = 20'000'000, .depth = 64, .documents = 1, .scalar_bytes = 1U << 20};

enum class Shape : std::uint8_t { text, json };

struct Question {
  std::string_view word;
  std::string_view method;
  std::string_view path;
  Shape shape;
};
constexpr std::array questions{
    Question{"config", "GET", "/config", Shape::text},         Question{"connections", "GET", "/connections", Shape::json},
    Question{"allow-list", "GET", "/allow-list", Shape::json}, Question{"identities", "GET", "/identities", Shape::json},
    Question{"ready", "GET", "/readyz", Shape::json},          Question{"metrics", "GET", "/metrics", Shape::text},
    Question{"drain", "POST", "/drain", Shape::json},          Question{"log-level", "PUT", "/log-level", Shape::json}};

int failed(const Error& error) {
  std::cerr << "posternctl proxy: " << error.text() << "\n";
  return exit_failed;
}

// "ready", or "not ready: why"; the exit status says it, too.
int print_readiness(const Node& reply) {
  const Node* ready = reply.find("ready");
  const Node* why = reply.find("why");
  if (ready != nullptr && ready->boolean) {
    std::cout << "ready\n";
    return exit_ok;
  }
  std::string reason;
  append_json_string(reason, why != nullptr ? why->scalar : "");
  std::cout << "not ready: " << reason << "\n";
  return exit_failed;
}

int print_reply(const Question& question, const AdminReply& reply, bool as_table) {
  const bool is_readiness = question.word == "ready" && (reply.status == 200 || reply.status == 503);
  if (question.shape == Shape::text && reply.status == 200) {
    std::cout << reply.body;
    return exit_ok;
  }
  const auto document = parse_json(reply.body, "answer", reply_limits);
  if (reply.status != 200 && !is_readiness) {
    const Node* error = document ? document->root.find("error") : nullptr;
    std::string why;
    append_json_string(why, error != nullptr ? error->scalar : reply.body);
    return failed({"the sidecar answered " + std::to_string(reply.status) + ": " + why, ""});
  }
  if (!document) return failed(document.error());
  if (!as_table) {
    std::cout << indented(document->root);
    const Node* ready = document->root.find("ready");
    return is_readiness && (ready == nullptr || !ready->boolean) ? exit_failed : exit_ok;
  }
  if (is_readiness) return print_readiness(document->root);
  std::cout << tabulated(document->root);
  return exit_ok;
}

int run(const Arguments& arguments) {
  const auto& words = arguments.positionals();
  const auto* const question =
      words.empty() ? questions.end()
                    : std::find_if(questions.begin(), questions.end(), [&](const Question& q) { return q.word == words[0]; });
  if (question == questions.end()) {
    std::string expected;
    for (const Question& q : questions) expected.append(expected.empty() ? "" : ", ").append(q.word);
    return bad_input(command_name, {"expected one of " + expected, ""});
  }
  const bool takes_level = question->word == "log-level";
  if (takes_level && words.size() != 2) return bad_input(command_name, {"log-level needs one of debug, info, warning, error", ""});
  if (!takes_level && words.size() != 1) return bad_input(command_name, {"unexpected argument '" + std::string(words[1]) + "'", ""});
  const std::string_view output = arguments.get("--output", question->word == "allow-list" ? "json" : "table");
  if (output != "json" && output != "table") return bad_input(command_name, {"--output: expected json or table", ""});

  std::string body;
  if (takes_level) {
    body = "{\"level\":";
    append_json_string(body, words[1]);
    body += "}";
  }
  const auto reply = ask_sidecar(admin_socket_of(arguments), question->method, question->path, body);
  if (!reply) return failed(reply.error());
  return print_reply(*question, *reply, output == "table");
}

}  // namespace

Command proxy_command() {
  return {.name = command_name,
          .summary = "ask a running sidecar about itself, or tell it to drain",
          .description =
              "Talks to the sidecar's admin socket (listen.adminSocket). QUESTION is one of\n"
              "  config       the configuration in force, as YAML\n"
              "  connections  the connections open now\n"
              "  allow-list   the compiled rules, peer sets and generation\n"
              "  identities   the SVID in use, the bundles, and the last error\n"
              "  ready        whether it is ready, and why not (exit status 1)\n"
              "  metrics      as Prometheus reads them\n"
              "  drain        stop accepting inbound connections, let the open ones finish, then exit\n"
              "  log-level    change what the sidecar logs: debug, info, warning or error",
          .options = {{"--socket", "PATH", "the admin socket; else $POSTERN_ADMIN_SOCKET, else /run/postern/admin.sock"},
                      {"--output", "FORMAT", "json or table; table is the default but for allow-list"}},
          .positionals = "QUESTION [LEVEL]",
          .most_positionals = 2,
          .run = run};
}

}  // namespace postern::cli
