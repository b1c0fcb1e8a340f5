#include "base/document_files.hpp"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace postern {
namespace {

Result<std::vector<std::string>> files_at(const std::string& path, bool may_be_empty) {
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
  if (files.empty() && !may_be_empty) return Error{"the directory holds no *.yaml, *.yml or *.json file", path};
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t bytes_max) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{std::string("cannot be opened: ") + std::strerror(errno), path};
  std::string text;
  for (std::vector<char> part(1U << 16); file.read(part.data(), static_cast<std::streamsize>(part.size())) || file.gcount() > 0;) {
    text.append(part.data(), static_cast<std::size_t>(file.gcount()));
    if (text.size() > bytes_max) return Error{"is larger than " + std::to_string(bytes_max) + " bytes", path};
  }
  if (file.bad()) return Error{"cannot be read", path};
  return text;
}

Result<std::vector<Document>> read_documents(const std::string& path, const DocumentLimits& limits, bool may_be_empty) {
  const auto files = files_at(path, may_be_empty);
  if (!files) return files.error();
  std::vector<Document> documents;
  std::size_t bytes_left = limits.bytes;
  for (const std::string& name : *files) {
    const auto text = read_file(name, bytes_left);
    if (!text) return text.error();
    bytes_left -= text->size();
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
  return documents;
}

}  // namespace postern
