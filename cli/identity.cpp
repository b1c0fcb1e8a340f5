// posternctl identity: who a running sidecar is, until when, and whom it trusts.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>

#include "base/document.hpp"
#include "base/log.hpp"
#include "certs/svid.hpp"
#include "cli/admin_client.hpp"
#include "cli/command.hpp"
#include "cli/json_text.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "identity";
constexpr DocumentLimits reply_limits{.bytes = 16U << 20, .nodes = 200'000, .depth = 8, .documents = 1, .scalar_bytes = 64U << 10};

// Escaped where it holds anything but graphic characters: no name of an authority can move the cursor.
std::string shown(const Node& object, std::string_view name) {
  const Node* field = object.find(name);
  if (field == nullptr || !field->is(Node::Kind::string)) return {};
  std::string escaped;
  append_json_string(escaped, field->scalar);
  return escaped.substr(1, escaped.size() - 2);
}

std::optional<SystemTime> time_of(const Node& object, std::string_view name) {
  const Node* field = object.find(name);
  if (field == nullptr || !field->is(Node::Kind::integer)) return std::nullopt;
  return SystemTime(std::chrono::seconds(field->integer));
}

std::string left_until(SystemTime end, SystemTime now) {
  const auto minutes = std::chrono::duration_cast<std::chrono::minutes>(end - now).count();
  if (end <= now) return " (expired)";
  return minutes < 1 ? " (in less than a minute)" : " (in " + std::to_string(minutes / 60) + " h " + std::to_string(minutes % 60) + " min)";
}

void line(std::string_view name, const std::string& value) {
  std::cout << name << std::string(name.size() < 14 ? 14 - name.size() : 1, ' ') << value << "\n";
}

void print_bundles(const Node& identity) {
  const Node* bundles = identity.find("bundles");
  if (bundles == nullptr) return;
  for (const Node& bundle : bundles->items) {
    const Node* authorities = bundle.find("authorities");
    line("trust bundle", shown(bundle, "trust_domain"));
    if (authorities == nullptr) continue;
    for (const Node& authority : authorities->items) {
      const auto ends = time_of(authority, "not_after");
      line("", shown(authority, "subject") + ", valid until " + (ends ? utc_text(*ends) : "?") + ", SHA-256 " +
                   shown(authority, "sha256").substr(0, 16));
    }
  }
}

int print_identity(const Node& identity) {
  const SystemTime now = std::chrono::system_clock::now();
  const auto begins = time_of(identity, "not_before");
  const auto ends = time_of(identity, "not_after");
  const auto renewal = time_of(identity, "next_renewal");
  const bool has_svid = begins && ends;
  line("SPIFFE ID", has_svid ? shown(identity, "spiffe_id") : "none: there is no SVID yet");
  if (has_svid) {
    line("serial", shown(identity, "serial"));
    line("valid from", utc_text(*begins));
    line("valid until", utc_text(*ends) + left_until(*ends, now));
  }
  line("source", shown(identity, "source"));
  line("next renewal", renewal ? utc_text(*renewal) + left_until(*renewal, now) : "when its source has a new one");
  print_bundles(identity);
  if (const std::string error = shown(identity, "error"); !error.empty()) line("error", error);
  return has_svid && *ends > now ? exit_ok : exit_failed;
}

int failed(const Error& error) {
  std::cerr << "posternctl identity: " << error.text() << "\n";
  return exit_failed;
}

int run(const Arguments& arguments) {
  const std::string_view output = arguments.get("--output", "table");
  if (output != "json" && output != "table") return bad_input(command_name, {"--output: expected json or table", ""});
  const auto reply = ask_sidecar(admin_socket_of(arguments), "GET", "/identities", "");
  if (!reply) return failed(reply.error());
  const auto document = parse_json(reply->body, "answer", reply_limits);
  if (!document) return failed(document.error());
  if (reply->status != 200) return failed({"the sidecar answered " + std::to_string(reply->status), ""});
  if (output == "table") return print_identity(document->root);
  std::cout << indented(document->root);
  const auto ends = time_of(document->root, "not_after");
  return ends && *ends > std::chrono::system_clock::now() ? exit_ok : exit_failed;
}

}  // namespace

Command identity_command() {
  return {.name = command_name,
          .summary = "say who a running sidecar is, until when, and whom it trusts",
          .description =
              "Asks the sidecar's admin socket (listen.adminSocket): SPIFFE ID, serial number and validity of its X.509-SVID, where it\n"
              "comes from, when it is renewed, and the trust bundles. Exit 0: there is a valid SVID; 1: there is none, it has expired,\n"
              "or the sidecar cannot be reached.",
          .options = {{"--socket", "PATH", "the admin socket; else $POSTERN_ADMIN_SOCKET, else /run/postern/admin.sock"},
                      {"--output", "FORMAT", "json or table"}},
          .run = run};
}

}  // namespace postern::cli
