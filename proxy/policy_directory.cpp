#include "proxy/policy_directory.hpp"

#include <sys/inotify.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "authz/compiler.hpp"
#include "authz/manifests.hpp"
#include "base/document_files.hpp"

namespace postern {

namespace {

constexpr std::uint32_t changes = IN_CLOSE_WRITE | IN_CREATE | IN_DELETE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE_SELF | IN_MOVE_SELF;

// Compiled for one pod: a cluster's worth of manifests is a few megabytes.
constexpr DocumentLimits limits{.bytes = 64U << 20, .nodes = 5'000'000};

// Everything that tells one state of the directory from another: the names, sizes, inodes and times of its files.
std::string fingerprint(const std::string& folder) {
  std::string seen = folder;
  std::error_code error;
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const auto written = entry.last_write_time(error).time_since_epoch().count();
    names.push_back(entry.path().string() + ' ' + std::to_string(entry.file_size(error)) + ' ' + std::to_string(written));
  }
  std::sort(names.begin(), names.end());
  for (const std::string& name : names) seen += '\n' + name;
  return seen;
}

}  // namespace

Result<std::unique_ptr<PolicyDirectory>> PolicyDirectory::make(std::string path, WorkloadKey self, MeshSettings settings) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  std::unique_ptr<PolicyDirectory> made(new PolicyDirectory(std::move(path), std::move(self), std::move(settings)));
  made->inotify_ = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
  if (made->inotify_ < 0) return Error{std::string("cannot watch files: ") + std::strerror(errno), made->path_};
  const std::filesystem::path parent = std::filesystem::absolute(made->path_).parent_path();
  if (!std::filesystem::is_directory(parent)) {
    return Error{"policyDir: its parent folder " + parent.string() + " does not exist; create it, or name another one", made->path_};
  }
  made->watch();
  return made;
}

PolicyDirectory::~PolicyDirectory() {
  if (inotify_ >= 0) close(inotify_);
}

// The directory itself (whatever the link points to now) and the one it stands in, where a link would be swapped. Watching what is
// watched already changes nothing.
void PolicyDirectory::watch() {
  const std::string parent = std::filesystem::absolute(path_).parent_path();
  inotify_add_watch(inotify_, parent.c_str(), changes);
  inotify_add_watch(inotify_, path_.c_str(), changes);
}

void PolicyDirectory::drain() {
  std::array<char, 4096> events;
  while (::read(inotify_, events.data(), events.size()) > 0) {
  }
}

std::optional<Result<std::shared_ptr<const PolicySnapshot>>> PolicyDirectory::read() {
  watch();
  // Resolved once: a link swapped while we read does not mix two states. Whoever swaps it deletes the old state next, and a state that is
  // half deleted would look like one with fewer policies: what was read counts only if it still stood there, unchanged, afterwards.
  constexpr int attempts = 20;
  std::optional<Result<std::vector<Document>>> documents;
  for (int attempt = 0; attempt < attempts && !documents; ++attempt) {
    std::error_code error;
    const std::string folder = std::filesystem::canonical(path_, error);
    if (error) return Error{"policyDir cannot be read: " + error.message() + "; create it, or name another one", path_};
    std::string before = fingerprint(folder);
    if (before == seen_) return std::nullopt;
    auto read = read_documents(folder, limits);
    if (std::filesystem::canonical(path_, error) != folder || error || fingerprint(folder) != before) continue;
    seen_ = std::move(before);
    documents = std::move(read);
  }
  if (!documents) return Error{"policyDir changed each time while it was read; replace it by swapping a symbolic link", path_};

  if (!*documents) return documents->error();
  auto manifests = decode_manifests(**documents);
  if (!manifests) return manifests.error();
  auto snapshot = compile(manifests->cluster, self_, settings_, generation_ + 1, std::chrono::system_clock::now());
  if (!snapshot) return snapshot.error();
  ++generation_;
  warnings_.clear();
  for (const Warning& warning : manifests->warnings) warnings_.push_back(warning.text());
  return snapshot;
}

}  // namespace postern
