// Manifest files of a command line, read into a cluster.
#pragma once

#include <string>
#include <string_view>

#include "authz/manifests.hpp"
#include "base/result.hpp"

namespace postern::cli {

// The whole file, up to a limit. Errors name the file.
Result<std::string> read_file(const std::string& path);

// A YAML or JSON file, or a directory: then its *.yaml, *.yml and *.json, not those of directories below (as kubectl does).
Result<Manifests> read_manifests(std::string_view path);

}  // namespace postern::cli
