// posternctl: what people type. One line per subcommand here; what each does is in its own file.
#include <algorithm>
#include <iostream>
#include <string_view>
#include <vector>

#include "cli/command.hpp"

namespace postern::cli {
namespace {

std::vector<Command> commands() {
  return {ca_command(),     certificate_command(), check_command(),  explain_command(), identity_command(),
          inject_command(), proxy_command(),       status_command(), verdicts_command()};
}

void print_commands(std::ostream& out, const std::vector<Command>& table) {
  std::size_t width = 0;
  for (const Command& command : table) width = std::max(width, command.name.size());
  out << "Usage: posternctl COMMAND [OPTION]...\n\nCommands:\n";
  for (const Command& command : table) {
    out << "  " << command.name << std::string(width + 2 - command.name.size(), ' ') << command.summary << "\n";
  }
  out << "\n'posternctl COMMAND --help' says what a command takes; --version: of which version this is.\n";
}

int run(const std::vector<std::string_view>& words) {
  const std::vector<Command> table = commands();
  if (words.empty()) {
    print_commands(std::cerr, table);
    return exit_bad_input;
  }
  if (words.front() == "--help" || words.front() == "-h" || words.front() == "help") {
    print_commands(std::cout, table);
    return exit_ok;
  }
  if (words.front() == "--version") {
    std::cout << "posternctl " POSTERN_VERSION "\n";
    return exit_ok;
  }
  const auto command = std::find_if(table.begin(), table.end(), [&](const Command& c) { return c.name == words.front(); });
  if (command == table.end()) {
    std::cerr << "posternctl: there is no command '" << words.front() << "'\n\n";
    print_commands(std::cerr, table);
    return exit_bad_input;
  }
  if (std::find_if(words.begin() + 1, words.end(), [](auto word) { return word == "--help" || word == "-h"; }) != words.end()) {
    std::cout << help_of(*command);
    return exit_ok;
  }
  const auto arguments = Arguments::parse(command->options, command->most_positionals, std::span(words).subspan(1));
  if (!arguments) {
    bad_input(command->name, arguments.error());
    std::cerr << "'posternctl " << command->name << " --help' says what it takes.\n";
    return exit_bad_input;
  }
  return command->run(*arguments);
}

}  // namespace
}  // namespace postern::cli

int main(int argc, char** argv) {
  std::ios::sync_with_stdio(false);
  return postern::cli::run(std::vector<std::string_view>(argv + 1, argv + argc));
}
