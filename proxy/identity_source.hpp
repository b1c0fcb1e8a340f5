// Where this sidecar's SVID comes from: the choice that the configuration makes among the sources.
#pragma once

#include <memory>

#include "base/log.hpp"
#include "certs/svid_source.hpp"
#include "proxy/config.hpp"

namespace postern {

// Null: no identity is configured. Fails where the source cannot be started at all; what is only not there yet is said by poll().
// REQUIRES: `config` and `log` outlive the source.
Result<std::unique_ptr<SvidSource>> make_identity_source(const Config& config, Log& log);

}  // namespace postern
