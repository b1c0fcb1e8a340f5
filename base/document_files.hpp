// Documents from files: what the command line and the stand-alone sidecar read manifests with.
#pragma once

#include <string>
#include <vector>

#include "base/document.hpp"
#include "base/result.hpp"

namespace postern {

// The whole file, up to `bytes_max`. Errors name the file.
Result<std::string> read_file(const std::string& path, std::size_t bytes_max);

// A YAML or JSON file, or a directory: then its *.yaml, *.yml and *.json, not those of directories below (as kubectl does), by name.
// An empty directory is an error unless `may_be_empty`. `limits.bytes` holds for each file and for all of them together.
Result<std::vector<Document>> read_documents(const std::string& path, const DocumentLimits& limits, bool may_be_empty = false);

}  // namespace postern
