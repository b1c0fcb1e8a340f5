// ConfigTable: a program's configuration as a table of fields. The parser, --print-config and "did you mean" all come from it.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/document.hpp"
#include "base/result.hpp"

namespace postern {

// What people are told of a field.
struct ConfigFieldText {
  std::string_view path;  // as in YAML: "limits.handshakeTimeout"
  std::string type;       // "duration", "integer, 1 to 127"
  std::string_view doc;   // one line
};

struct ConfigSection {
  std::string_view path;  // "limits"
  std::string_view doc;
};

template <class Config>
struct ConfigField : ConfigFieldText {
  Result<void> (*parse)(const Node& node, Config& config);
  std::string (*print)(const Config& config);  // a YAML scalar or flow list
};

// In the order of print(); the fields of one section follow each other, those of a section inside it ("mesh.denied") come last.
template <class Config>
struct ConfigTable {
  std::vector<ConfigField<Config>> fields;
  std::vector<ConfigSection> sections;

  // Reads YAML text. An unknown key or an ill-typed value is refused: source:line, field, what is expected, the nearest valid name.
  // Fields that the text does not name keep their value of `start`.
  Result<Config> parse(std::string_view yaml, std::string_view source, Config start) const;
  // Every field with its current value and a comment saying what it is, its unit and default: valid input for parse().
  std::string print(const Config& config) const;

 private:
  std::vector<ConfigFieldText> texts() const { return {fields.begin(), fields.end()}; }
};

// A field whose values are read and printed by `Value` (config_values.hpp). `Access` is a captureless lambda that yields the field of a
// (const) Config.
template <class Config, class Value, class Access>
ConfigField<Config> config_field(std::string_view path, Access, std::string_view doc) {
  return {{path, Value::describe(), doc},
          [](const Node& node, Config& config) -> Result<void> {
            auto value = Value::read(node);
            if (!value) return value.error();
            Access{}(config) = *std::move(value);
            return {};
          },
          [](const Config& config) { return Value::print(Access{}(config)); }};
}

// The parts that do not depend on the type of the configuration: `parse` and `print` are given the number of a field.
Result<void> read_config(std::string_view yaml, std::string_view source, const std::vector<ConfigFieldText>& fields,
                         const std::vector<ConfigSection>& sections, const std::function<Result<void>(std::size_t, const Node&)>& parse);
std::string print_config(const std::vector<ConfigFieldText>& fields, const std::vector<ConfigSection>& sections,
                         const std::function<std::string(std::size_t)>& print,
                         const std::function<std::string(std::size_t)>& print_default);

template <class Config>
Result<Config> ConfigTable<Config>::parse(std::string_view yaml, std::string_view source, Config start) const {
  auto done =
      read_config(yaml, source, texts(), sections, [&](std::size_t field, const Node& node) { return fields[field].parse(node, start); });
  if (!done) return done.error();
  return start;
}

template <class Config>
std::string ConfigTable<Config>::print(const Config& config) const {
  const Config defaults;
  return print_config(
      texts(), sections, [&](std::size_t field) { return fields[field].print(config); },
      [&](std::size_t field) { return fields[field].print(defaults); });
}

}  // namespace postern
