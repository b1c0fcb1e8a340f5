#include "proxy/config.hpp"

#include <algorithm>
#include <array>
#include <set>

#include "base/document.hpp"
#include "proxy/config_fields.hpp"
#include "proxy/config_names.hpp"
#include "proxy/config_values.hpp"

namespace postern {
namespace {

constexpr DocumentLimits config_limits{.bytes = 256U << 10, .nodes = 20'000, .depth = 16, .documents = 2, .scalar_bytes = 16U << 10};

std::string_view last_part(std::string_view path) { return path.substr(path.rfind('.') + 1); }
std::string_view parent(std::string_view path) {
  const auto dot = path.rfind('.');
  return dot == std::string_view::npos ? std::string_view() : path.substr(0, dot);
}

Error at(const Document& document, const Node& node, std::string_view path, std::string message) {
  std::string where = document.source + ":" + std::to_string(node.line) + ":" + std::to_string(node.column);
  if (!path.empty()) where.append(": ").append(path);
  return {std::move(message), std::move(where)};
}

// The names that may stand in a section ("" is the top level).
std::vector<std::string_view> names_in(std::string_view section) {
  std::vector<std::string_view> names;
  for (const ConfigField& field : config_fields()) {
    if (parent(field.path) == section) names.push_back(last_part(field.path));
  }
  if (section.empty()) {
    for (const ConfigSection& s : config_sections()) names.push_back(s.path);
  }
  return names;
}

// The nearest name of the same section; else a field of that very name elsewhere, with its whole path.
std::string suggestion(std::string_view section, std::string_view key) {
  if (const auto nearest = nearest_name(key, names_in(section))) return "; did you mean " + std::string(*nearest) + "?";
  for (const ConfigField& field : config_fields()) {
    const std::array<std::string_view, 1> name{last_part(field.path)};
    if (nearest_name(key, name)) return "; did you mean " + std::string(field.path) + "?";
  }
  std::string names;
  for (const std::string_view name : names_in(section)) names.append(names.empty() ? "" : ", ").append(name);
  return "; expected one of " + names;
}

// As it stands where it can be shown so, else quoted and escaped.
std::string shown(std::string_view key) {
  const bool plain = !key.empty() && std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
  const std::string_view part = key.substr(0, 64);
  return plain ? std::string(part) : config_value::quoted(part);
}

class Reader {
 public:
  Reader(const Document& document, Config start) : document_(document), config_(std::move(start)) {}

  Result<Config> read() {
    auto done = read_section(document_.root, "");
    if (!done) return done.error();
    return std::move(config_);
  }

 private:
  // Null stands for a section whose fields are all commented out.
  Result<void> read_section(const Node& node, std::string_view section) {
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

  Result<void> read_entry(std::string_view section, const std::string& key, const Node& value) {
    const bool dotted = key.find('.') != std::string::npos;  // "limits.idleTimeout" as one key is no field: one spelling only
    const std::string path = section.empty() ? key : std::string(section) + "." + key;
    const auto& fields = config_fields();
    const auto field = std::find_if(fields.begin(), fields.end(), [&](const ConfigField& f) { return !dotted && f.path == path; });
    if (field != fields.end()) {
      auto done = field->parse(value, config_);
      if (!done) return at(document_, value, path, done.error().text());
      return {};
    }
    const auto& sections = config_sections();
    const auto known = std::find_if(sections.begin(), sections.end(), [&](const ConfigSection& s) { return s.path == path; });
    if (known != sections.end()) return read_section(value, known->path);
    const std::string name = section.empty() ? shown(key) : std::string(section) + "." + shown(key);
    return at(document_, value, name, "unknown field" + suggestion(section, key));
  }

  const Document& document_;
  Config config_;
};

}  // namespace

Result<Config> parse_config(std::string_view yaml, std::string_view source, Config start) {
  auto documents = parse_yaml(yaml, source, config_limits);
  if (!documents) return documents.error();
  if (documents->empty()) return start;
  if (documents->size() > 1) {
    const Document& second = (*documents)[1];
    return at(second, second.root, "", "expected one document; found another one after \"---\"");
  }
  return Reader(documents->front(), std::move(start)).read();
}

Result<void> validate(const Config& config) {
  const auto& identity = config.identity;
  const bool any_identity = !identity.certificate.empty() || !identity.key.empty() || !identity.bundle.empty();
  for (const auto& [path, value] : {std::pair{"identity.certificate", &identity.certificate}, std::pair{"identity.key", &identity.key},
                                    std::pair{"identity.bundle", &identity.bundle}}) {
    if (any_identity && value->empty()) {
      return Error{"missing; identity.certificate, identity.key and identity.bundle are given together or not at all", path};
    }
  }
  if (config.mesh.trust_domain.text().empty() && (any_identity || !config.policy_dir.empty())) {
    return Error{"missing; expected the trust domain of the mesh, such as cluster.local", "mesh.trustDomain"};
  }
  if (!config.policy_dir.empty() && (config.workload.ns.empty() || config.workload.name.empty())) {
    return Error{"missing; expected the pod that this sidecar serves, so that its policies can be found in policyDir",
                 config.workload.ns.empty() ? "workload.namespace" : "workload.name"};
  }
  std::set<Port> ports;
  for (const auto& [path, port] : {std::pair{"listen.inbound", config.listen.inbound}, std::pair{"listen.outbound", config.listen.outbound},
                                   std::pair{"listen.health", config.listen.health}}) {
    if (port.number != 0 && !ports.insert(port).second) {
      return Error{"port " + std::to_string(port.number) + " is given twice; inbound, outbound and health need a port each", path};
    }
  }
  if (config.recycling.enabled && config.recycling.inbound_idle <= config.recycling.outbound_idle) {
    return Error{"expected longer than recycling.outboundIdle (" + config_value::print_duration(config.recycling.outbound_idle) +
                     "): the outbound side must be the one that closes an idle connection",
                 "recycling.inboundIdle"};
  }
  return {};
}

std::string print_config(const Config& config) {
  const Config defaults;
  std::string out;
  std::string_view open;
  for (const ConfigField& field : config_fields()) {
    const std::string_view section = parent(field.path);
    const std::string indent = section.empty() ? "" : "  ";
    if (section != open || section.empty()) out.append(out.empty() ? "" : "\n");
    if (section != open && !section.empty()) {
      const auto& sections = config_sections();
      const auto found = std::find_if(sections.begin(), sections.end(), [&](const ConfigSection& s) { return s.path == section; });
      out.append("# ").append(found->doc).append("\n").append(section).append(":\n");
    }
    open = section;
    out.append(indent).append("# ").append(field.doc).append(" (").append(field.type);
    out.append("; default ").append(field.print(defaults)).append(")\n");
    out.append(indent).append(last_part(field.path)).append(": ").append(field.print(config)).append("\n");
  }
  return out;
}

}  // namespace postern
