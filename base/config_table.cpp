#include "base/config_table.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "base/config_values.hpp"
#include "base/nearest_name.hpp"

namespace postern {
namespace {

constexpr DocumentLimits config_limits{.bytes = 256U << 10, .nodes = 20'000, .depth = 16, .documents = 2, .scalar_bytes = 16U << 10};

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('.') + 1); }
std::string_view parent(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

// Two spaces for each section that it stands in.
std::string indent_of(std::string_view path) {
  return std::string(2 * static_cast<std::size_t>(std::count(path.begin(), path.end(), '.')), ' ');
}

Error at(const Document& document, const Node& node, std::string_view path, std::string message) {
  std::string where = document.source + ":" + std::to_string(node.line) + ":" + std::to_string(node.column);
  if (!path.empty()) where.append(": ").append(path);
  return {std::move(message), std::move(where)};
}

// As it stands where it can be shown so, else quoted and escaped.
std::string shown(std::string_view key) {
  const bool plain = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
  const std::string_view part = key.substr(0, 64);
  return plain ? std::string(part) : config_value::quoted(part);
}

class Reader {
 public:
  Reader(const Document& document, const std::vector<ConfigFieldText>& fields, const std::vector<ConfigSection>& sections,
         const std::function<Result<void>(std::size_t, const Node&)>& parse)
      : document_(document), fields_(fields), sections_(sections), parse_(parse) {}

  // Null stands for a section whose fields are all commented out.
  Result<void> read_section(const Node& node, std::string_view section) const {
    if (node.is(Node::Kind::null)) return {};
    if (!node.is(Node::Kind::mapping)) {
      return at(document_, node, section, config_value::ill_typed(node, "fields with their values, such as \"name: value\"").message);
    }
    for (const auto& [key, value] : node.fields) {
      auto done = read_entry(section, key, value);
      if (!done) return done;
    }
    return {};
  }

 private:
  Result<void> read_entry(std::string_view section, const std::string& key, const Node& value) const {
    const bool dotted = key.find('.') != std::string::npos;  // "limits.idleTimeout" as one key is no field: one spelling only
    const std::string path = section.empty() ? key : std::string(section) + "." + key;
    const auto field = std::find_if(fields_.begin(), fields_.end(), [&](const ConfigFieldText& f) { return !dotted && f.path == path; });
    if (field != fields_.end()) {
      auto done = parse_(static_cast<std::size_t>(field - fields_.begin()), value);
      if (!done) return at(document_, value, path, done.error().text());
      return {};
    }
    const auto known = std::find_if(sections_.begin(), sections_.end(), [&](const ConfigSection& s) { return s.path == path; });
    if (known != sections_.end()) return read_section(value, known->path);
    const std::string name = section.empty() ? shown(key) : std::string(section) + "." + shown(key);
    return at(document_, value, name, "unknown field" + suggestion(section, key));
  }

  // The names that may stand in a section ("" is the top level).
  std::vector<std::string_view> names_in(std::string_view section) const {
    std::vector<std::string_view> names;
    for (const ConfigFieldText& field : fields_) {
      if (parent(field.path) == section) names.push_back(last_part(field.path));
    }
    for (const ConfigSection& s : sections_) {
      if (parent(s.path) == section) names.push_back(last_part(s.path));
    }
    return names;
  }

  // The nearest name of the same section; else a field of that very name elsewhere, with its whole path.
  std::string suggestion(std::string_view section, std::string_view key) const {
    if (const auto nearest = nearest_name(key, names_in(section))) return "; did you mean " + std::string(*nearest) + "?";
    for (const ConfigFieldText& field : fields_) {
      const std::array<std::string_view, 1> name{last_part(field.path)};
      if (nearest_name(key, name)) return "; did you mean " + std::string(field.path) + "?";
    }
    std::string names;
    for (const std::string_view name : names_in(section)) names.append(names.empty() ? "" : ", ").append(name);
    return "; expected one of " + names;
  }

  const Document& document_;
  const std::vector<ConfigFieldText>& fields_;
  const std::vector<ConfigSection>& sections_;
  const std::function<Result<void>(std::size_t, const Node&)>& parse_;
};

}  // namespace

Result<void> read_config(std::string_view yaml, std::string_view source, const std::vector<ConfigFieldText>& fields,
                         const std::vector<ConfigSection>& sections, const std::function<Result<void>(std::size_t, const Node&)>& parse) {
  auto documents = parse_yaml(yaml, source, config_limits);
  if (!documents) return documents.error();
  if (documents->empty()) return {};
  if (documents->size() > 1) {
    const Document& second = (*documents)[1];
    return at(second, second.root, "", "expected one document; found another one after \"---\"");
  }
  return Reader(documents->front(), fields, sections, parse).read_section(documents->front().root, "");
}

std::string print_config(const std::vector<ConfigFieldText>& fields, const std::vector<ConfigSection>& sections,
                         const std::function<std::string(std::size_t)>& print,
                         const std::function<std::string(std::size_t)>& print_default) {
  std::string out;
  std::string_view open;
  for (std::size_t i = 0; i < fields.size(); ++i) {
    const ConfigFieldText& field = fields[i];
    const std::string_view section = parent(field.path);
    const std::string indent = indent_of(field.path);
    const bool inner = !open.empty() && section.starts_with(std::string(open) + ".");  // "mesh.denied" after "mesh"
    if ((section != open && !inner) || section.empty()) out.append(out.empty() ? "" : "\n");
    if (section != open && !section.empty()) {
      const auto found = std::find_if(sections.begin(), sections.end(), [&](const ConfigSection& s) { return s.path == section; });
      const std::string outer = indent_of(section);
      out.append(outer).append("# ").append(found->doc).append("\n").append(outer).append(last_part(section)).append(":\n");
    }
    open = section;
    out.append(indent).append("# ").append(field.doc).append(" (").append(field.type);
    out.append("; default ").append(print_default(i)).append(")\n");
    out.append(indent).append(last_part(field.path)).append(": ").append(print(i)).append("\n");
  }
  return out;
}

}  // namespace postern
