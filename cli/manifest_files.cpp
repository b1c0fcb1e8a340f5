#include "cli/manifest_files.hpp"

#include "base/document_files.hpp"

namespace postern::cli {
namespace {

// Of all files together; a cluster's worth of manifests is a few tens of megabytes.
constexpr std::size_t most_bytes = 256U << 20;

}  // namespace

Result<std::string> read_file(const std::string& path) { return postern::read_file(path, most_bytes); }

Result<Manifests> read_manifests(std::string_view path) {
  const auto documents = read_documents(std::string(path), {.bytes = most_bytes, .nodes = 20'000'000});
  if (!documents) return documents.error();
  return decode_manifests(*documents);
}

}  // namespace postern::cli
