// BundleAcks: which trust bundle each sidecar that this replica has seen has acknowledged last. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <string>

#include "authz/cluster.hpp"
#include "certs/svid.hpp"

namespace postern {

class BundleAcks {
 public:
  // The sidecar of that pod was seen, and says that it enforces the bundle of this sequence (0: that of no control plane, or not known).
  void saw(const WorkloadKey& pod, const std::string& uid, std::uint64_t sequence, SystemTime now);
  // Those seen within `ttl` that have not acknowledged that bundle. Forgets the others, and those whose pod is gone (`exists` says no): a
  // pod that is gone has an SVID that nobody takes any more.
  std::uint64_t lagging(std::uint64_t sequence, std::chrono::seconds ttl, SystemTime now,
                        const std::function<bool(const WorkloadKey& pod, const std::string& uid)>& exists);
  // Some of those that lagging() counted last, for people: "namespace/name".
  const std::vector<std::string>& examples() const { return examples_; }
  std::size_t size() const { return seen_.size(); }

 private:
  struct Seen {
    WorkloadKey pod;
    std::uint64_t sequence = 0;
    SystemTime at;
  };
  std::map<std::string, Seen> seen_;  // by UID
  std::vector<std::string> examples_;
};

}  // namespace postern
