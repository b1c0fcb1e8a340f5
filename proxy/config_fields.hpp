// The table of the configuration's fields: parse_config, print_config, suggestions and docs/configuration.md all come from it.
#pragma once

#include "base/config_table.hpp"
#include "proxy/config.hpp"

namespace postern {

const ConfigTable<Config>& config_table();

}  // namespace postern
