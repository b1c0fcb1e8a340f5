// A subcommand of posternctl: one entry of the table in main.cpp.
#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace postern::cli {

// Exit statuses that scripts may rely on.
inline constexpr int exit_ok = 0;
inline constexpr int exit_failed = 1;     // it was asked rightly, and the answer is no
inline constexpr int exit_bad_input = 2;  // the command line, or a file that it names

struct Option {
  std::string_view name;   // --manifests
  std::string_view value;  // PATH; empty for a switch
  std::string_view help;
  bool required = false;
  bool repeated = false;  // may be given more than once
};

// A command line, checked against the options of its subcommand. Views into the command line.
class Arguments {
 public:
  // "--name value" and "--name=value"; -f is --file; what does not begin with "--" is positional.
  static Result<Arguments> parse(std::span<const Option> options, std::size_t most_positionals, std::span<const std::string_view> words);

  std::optional<std::string_view> get(std::string_view option) const;
  std::string_view get(std::string_view option, std::string_view fallback) const { return get(option).value_or(fallback); }
  std::vector<std::string_view> all(std::string_view option) const;  // of a repeated one, in order
  bool has(std::string_view option) const { return values_.contains(option); }
  const std::vector<std::string_view>& positionals() const { return positionals_; }

 private:
  std::map<std::string_view, std::vector<std::string_view>> values_;  // never empty
  std::vector<std::string_view> positionals_;
};

struct Command {
  std::string_view name;
  std::string_view summary;      // one line, for the list of subcommands
  std::string_view description;  // for --help
  std::vector<Option> options;
  std::string_view positionals = {};  // how usage names them; empty: there are none
  std::size_t most_positionals = 0;
  int (*run)(const Arguments& arguments) = nullptr;  // returns the exit status
};

// What --help prints.
std::string help_of(const Command& command);
// Prints "posternctl <command>: <error>" on standard error; returns exit_bad_input.
int bad_input(std::string_view command, const Error& error);

// --socket, else $POSTERN_ADMIN_SOCKET, else /run/postern/admin.sock.
std::string admin_socket_of(const Arguments& arguments);

Command verdicts_command();
Command explain_command();
Command check_command();
Command inject_command();
Command proxy_command();
Command certificate_command();
Command identity_command();
Command status_command();
Command ca_command();

}  // namespace postern::cli
