// The table of the configuration's fields: parse_config, print_config, suggestions and docs/configuration.md all come from it.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "proxy/config.hpp"

namespace postern {

struct ConfigField {
  std::string_view path;  // as in YAML: "limits.handshakeTimeout"
  std::string type;       // for people: "duration", "integer, 1 to 127"
  std::string_view doc;   // one line
  Result<void> (*parse)(const Node& node, Config& config);
  std::string (*print)(const Config& config);  // a YAML scalar or flow list
};

struct ConfigSection {
  std::string_view path;  // "limits"
  std::string_view doc;
};

// In the order of print_config; the fields of one section follow each other.
const std::vector<ConfigField>& config_fields();
const std::vector<ConfigSection>& config_sections();

}  // namespace postern
