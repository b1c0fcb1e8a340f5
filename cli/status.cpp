// posternctl status: which policy is in force where, by the word of every replica of the control plane.
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <thread>

#include "base/config_values.hpp"
#include "cli/admin_client.hpp"
#include "cli/command.hpp"
#include "cli/policy_report.hpp"

namespace postern::cli {
namespace {

constexpr std::string_view command_name = "status";
constexpr std::string_view default_control = "127.0.0.1:15011";
constexpr auto poll_interval = std::chrono::milliseconds{100};
using Clock = std::chrono::steady_clock;

std::vector<std::string> addresses_of(const Arguments& arguments) {
  std::vector<std::string> out;
  for (const std::string_view given : arguments.all("--control")) out.emplace_back(given);
  const char* from_environment = std::getenv("POSTERN_CONTROL");
  if (out.empty()) out.emplace_back(from_environment != nullptr && *from_environment != '\0' ? from_environment : default_control);
  return out;
}

Result<std::chrono::milliseconds> deadline_of(const Arguments& arguments) {
  Node node;
  node.kind = Node::Kind::string;
  node.scalar = arguments.get("--deadline", "60s");
  auto value = config_value::read_duration(node, false, std::chrono::milliseconds{1});
  if (!value) return Error{value.error().message, "--deadline"};
  return value;
}

Result<Question> question_of(const Arguments& arguments) {
  Question question;
  if (!arguments.positionals().empty()) question.policy = arguments.positionals().front();
  const auto slash = question.policy.find('/');
  if (!question.policy.empty() && (slash == std::string::npos || slash == 0 || slash + 1 == question.policy.size())) {
    return Error{"expected NAMESPACE/NAME; found " + question.policy, ""};
  }
  question.absent = arguments.has("--absent");
  question.strict = arguments.has("--strict");
  if (const auto text = arguments.get("--generation")) {
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
    if (error != std::errc{} || end != text->data() + text->size() || value < 1) return Error{"expected a number from 1", "--generation"};
    question.generation = value;
  }
  if ((question.absent || question.generation) && question.policy.empty())
    return Error{"--absent and --generation ask about one policy", ""};
  return question;
}

// Asks every replica; those that do not answer are named in `problems`.
Report ask_all(const std::vector<std::string>& addresses, const Question& question, std::vector<std::string>& problems) {
  std::string path = "/policies";
  const std::string& policy = question.policy;
  if (const auto slash = policy.find('/'); slash != std::string::npos) {
    path += "?namespace=" + policy.substr(0, slash) + "&name=" + policy.substr(slash + 1);
  }
  Report report;
  for (const std::string& address : addresses) {
    const auto reply = ask_control(address, "GET", path);
    if (!reply) {
      problems.push_back(reply.error().text());
    } else if (reply->status != 200) {
      problems.push_back(address + ": answered " + std::to_string(reply->status));
    } else if (auto added = add_answer(report, reply->body); !added) {
      problems.push_back(address + ": " + added.error().text());
    } else if (question.absent) {
      const auto sidecars = ask_control(address, "GET", "/unconnected");
      const auto known = sidecars && sidecars->status == 200 ? add_unconnected(report, sidecars->body)
                                                             : Error{"does not say which sidecars are connected", {}};
      if (!known) problems.push_back(address + ": " + known.error().text());
    }
  }
  return report;
}

int run(const Arguments& arguments) {
  const auto question = question_of(arguments);
  if (!question) return bad_input(command_name, question.error());
  const auto deadline = deadline_of(arguments);
  if (!deadline) return bad_input(command_name, deadline.error());
  const std::string_view output = arguments.get("--output", "table");
  if (output != "json" && output != "table") return bad_input(command_name, {"--output: expected json or table", ""});
  const std::vector<std::string> addresses = addresses_of(arguments);
  const bool wait = arguments.has("--wait");

  const auto until = Clock::now() + *deadline;
  while (true) {
    std::vector<std::string> problems;
    const Report report = ask_all(addresses, *question, problems);
    std::vector<std::string> missing = missing_of(report, *question);
    // A replica that is away may serve sidecars that still enforce what is to be gone; all others are then seen as disconnected.
    if (question->absent) missing.insert(missing.end(), problems.begin(), problems.end());
    const bool over = Clock::now() >= until;
    if (wait && !missing.empty() && !over) {
      std::this_thread::sleep_for(poll_interval);
      continue;
    }
    if (report.replicas > 0) std::cout << (output == "json" ? report_json(report) : report_table(report)) << std::flush;
    for (const std::string& problem : problems) std::cerr << "posternctl status: " << problem << "\n";
    if (report.replicas == 0) return exit_failed;
    if (!wait) return exit_ok;
    if (missing.empty()) return exit_ok;
    std::cerr << "posternctl status: not in force within " << config_value::print_duration(*deadline) << ":\n";
    for (const std::string& one : missing) std::cerr << "  " << one << "\n";
    return exit_failed;
  }
}

}  // namespace

Command status_command() {
  return {
      .name = command_name,
      .summary = "say which policy is in force on which pods, or wait until it is",
      .description =
          "Asks the replicas of postern-control. A pod counts as enforced when every worker of its sidecar has adopted the policy as it is "
          "now\n"
          "and has decided its live connections again. With --wait the exit status is 0 once every selected pod with a sidecar enforces\n"
          "the policy, and 1 at the deadline, with the others listed. After changing a policy, give its metadata.generation, or --absent "
          "when it\n"
          "was deleted: else the answer is about what the control plane has seen so far.",
      .options = {{"--control", "ADDRESS",
                   "HOST:PORT of a replica's health port, or its admin socket's path; else $POSTERN_CONTROL, else 127.0.0.1:15011", false,
                   true},
                  {"--wait", "", "wait until all is enforced"},
                  {"--deadline", "TIME", "how long to wait; 60s"},
                  {"--generation", "N", "the policy's metadata.generation must have been seen"},
                  {"--absent", "", "the policy must be gone, and every running sidecar connected and in step"},
                  {"--strict", "", "a selected pod without a sidecar counts as not enforced"},
                  {"--output", "FORMAT", "json or table"}},
      .positionals = "[NAMESPACE/POLICY]",
      .most_positionals = 1,
      .run = run};
}

}  // namespace postern::cli
