#include "cli/command.hpp"

#include <algorithm>
#include <cstdlib>
#include <iostream>

namespace postern::cli {

Result<Arguments> Arguments::parse(std::span<const Option> options, std::size_t most_positionals, std::span<const std::string_view> words) {
  Arguments result;
  for (std::size_t i = 0; i < words.size(); ++i) {
    const std::string_view word = words[i] == "-f" ? "--file" : words[i];  // as kubectl has it
    if (!word.starts_with("--")) {
      if (result.positionals_.size() == most_positionals) return Error{"unexpected argument '" + std::string(word) + "'", ""};
      result.positionals_.push_back(word);
      continue;
    }
    const auto equals = word.find('=');
    const std::string_view name = word.substr(0, equals);
    const auto option = std::find_if(options.begin(), options.end(), [name](const Option& o) { return o.name == name; });
    if (option == options.end()) return Error{"there is no option '" + std::string(name) + "'", ""};
    std::string_view value;
    if (equals != std::string_view::npos) {
      if (option->value.empty()) return Error{"the option " + std::string(name) + " takes no value", ""};
      value = word.substr(equals + 1);
    } else if (!option->value.empty()) {
      if (i + 1 == words.size()) return Error{"the option " + std::string(name) + " needs a value: " + std::string(option->value), ""};
      value = words[++i];
    }
    auto& values = result.values_[option->name];
    if (!values.empty() && !option->repeated) return Error{"the option " + std::string(name) + " is given twice", ""};
    values.push_back(value);
  }
  for (const Option& option : options) {
    if (option.required && !result.has(option.name)) {
      return Error{"the option " + std::string(option.name) + " " + std::string(option.value) + " is missing", ""};
    }
  }
  return result;
}

std::optional<std::string_view> Arguments::get(std::string_view option) const {
  const auto value = values_.find(option);
  return value == values_.end() ? std::nullopt : std::optional(value->second.front());
}

std::vector<std::string_view> Arguments::all(std::string_view option) const {
  const auto value = values_.find(option);
  return value == values_.end() ? std::vector<std::string_view>() : value->second;
}

std::string help_of(const Command& command) {
  std::string text = "Usage: posternctl " + std::string(command.name);
  std::size_t width = std::string_view("--help").size();
  const auto spelled = [](const Option& option) {
    return std::string(option.name) + (option.value.empty() ? "" : " " + std::string(option.value));
  };
  for (const Option& option : command.options) {
    text += option.required ? " " + spelled(option) : " [" + spelled(option) + "]";
    if (option.repeated) text += "...";
    width = std::max(width, spelled(option).size());
  }
  if (!command.positionals.empty()) text += " " + std::string(command.positionals);
  text += "\n\n" + std::string(command.description) + "\n\nOptions:\n";
  const auto line = [&](const std::string& name, std::string_view help) {
    text += "  " + name + std::string(width + 2 - name.size(), ' ') + std::string(help) + "\n";
  };
  for (const Option& option : command.options) line(spelled(option), option.help);
  line("--help", "print this");
  return text;
}

std::string admin_socket_of(const Arguments& arguments) {
  if (const auto given = arguments.get("--socket")) return std::string(*given);
  const char* from_environment = std::getenv("POSTERN_ADMIN_SOCKET");
  return from_environment != nullptr && *from_environment != '\0' ? from_environment : "/run/postern/admin.sock";
}

int bad_input(std::string_view command, const Error& error) {
  std::cerr << "posternctl " << command << ": " << error.text() << "\n";
  return exit_bad_input;
}

}  // namespace postern::cli
