#include "cli/manifest_files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>
#include <vector>

#include "base/document.hpp"

namespace postern::cli {
namespace {

// Of all files together; a cluster's worth of manifests is a few tens of megabytes.
constexpr std::size_t most_bytes = 256U << 20;

Result<std::vector<std::string>> files_at(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code error;
  const fs::file_status status = fs::status(path, error);
  if (!fs::exists(status)) return Error{"there is no such file or directory", path};
  if (!fs::is_directory(status)) return std::vector<std::string>{path};

  std::vector<std::string> files;
  fs::directory_iterator entries(path, error);
  if (error) return Error{"cannot be listed: " + error.message(), path};
  for (const auto& entry : entries) {
    const std::string extension = entry.path().extension().string();
    const bool is_manifest = extension == ".yaml" || extension == ".yml" || extension == ".json";
    if (is_manifest && entry.is_regular_file(error)) files.push_back(entry.path().string());
  }
  if (files.empty()) return Error{"the directory holds no *.yaml, *.yml or *.json file", path};
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{std::string("cannot be opened: ") + std::strerror(errno), path};
  file.seekg(0, std::ios::end);
  const std::streamoff size = file.tellg();
  if (size > static_cast<std::streamoff>(most_bytes)) return Error{"is larger than " + std::to_string(most_bytes >> 20) + " MB", path};
  file.seekg(0);
  file.clear();  // what cannot be sought in, such as a pipe, is read to its end
  std::string text;
  for (std::vector<char> part(1U << 16); file.read(part.data(), static_cast<std::streamsize>(part.size())) || file.gcount() > 0;) {
    text.append(part.data(), static_cast<std::size_t>(file.gcount()));
    if (text.size() > most_bytes) return Error{"is larger than " + std::to_string(most_bytes >> 20) + " MB", path};
  }
  if (file.bad()) return Error{"cannot be read", path};
  return text;
}

Result<Manifests> read_manifests(std::string_view path) {
  const auto files = files_at(std::string(path));
  if (!files) return files.error();
  const DocumentLimits limits{.bytes = most_bytes, .nodes = 20'000'000};
  std::vector<Document> documents;
  for (const std::string& name : *files) {
    const auto text = read_file(name);
    if (!text) return text.error();
    if (name.ends_with(".json")) {
      auto document = parse_json(*text, name, limits);
      if (!document) return document.error();
      documents.push_back(std::move(*document));
    } else {
      auto parsed = parse_yaml(*text, name, limits);
      if (!parsed) return parsed.error();
      std::move(parsed->begin(), parsed->end(), std::back_inserter(documents));
    }
  }
  return decode_manifests(documents);
}

}  // namespace postern::cli
