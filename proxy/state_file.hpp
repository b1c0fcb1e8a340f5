// Files of the sidecar's memory-backed folder (control.stateDir), from which a restarted sidecar goes on.
#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace postern {

// Nothing: there is no file. Refuses a file that is not a regular one, is longer than `most`, or that others than its owner (this user) may
// touch.
Result<std::optional<std::string>> read_state_file(const std::string& folder, std::string_view name, std::size_t most);
// Written to a temporary (0600) and renamed.
Result<void> write_state_file(const std::string& folder, std::string_view name, std::string_view bytes);
// Whether the folder lives in memory (tmpfs, ramfs): elsewhere the state would outlive the pod's memory on disk.
bool is_memory_backed(const std::string& folder);

}  // namespace postern
