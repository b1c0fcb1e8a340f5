// PolicyDirectory: policies and topology as manifests in a directory (stand-alone mode), compiled for one workload and read again when
// they change: written in place, renamed over, or the whole directory swapped by a symbolic link.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/snapshot.hpp"
#include "base/result.hpp"

namespace postern {

class PolicyDirectory {
 public:
  // Fails where inotify does, or the directory that holds `path` does not exist.
  static Result<std::unique_ptr<PolicyDirectory>> make(std::string path, WorkloadKey self, MeshSettings settings);
  ~PolicyDirectory();
  PolicyDirectory(const PolicyDirectory&) = delete;
  PolicyDirectory& operator=(const PolicyDirectory&) = delete;

  // To wait on; then poll().
  int fd() const { return inotify_; }
  // Drains what fd() announced.
  void drain();
  // Reads and compiles; nothing where the content is what it was. An error: the last good snapshot stays in force.
  std::optional<Result<std::shared_ptr<const PolicySnapshot>>> read();
  // What the last good reading accepted, but may not mean what its author thinks.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  PolicyDirectory(std::string path, WorkloadKey self, MeshSettings settings)
      : path_(std::move(path)), self_(std::move(self)), settings_(std::move(settings)) {}
  void watch();

  std::string path_;
  WorkloadKey self_;
  MeshSettings settings_;
  int inotify_ = -1;
  std::string seen_;  // what was read last, good or bad
  std::uint64_t generation_ = 0;
  std::vector<std::string> warnings_;
};

}  // namespace postern
