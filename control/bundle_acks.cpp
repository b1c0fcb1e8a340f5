#include "control/bundle_acks.hpp"

#include <algorithm>

namespace postern {

namespace {
constexpr std::size_t most_examples = 10;
}

void BundleAcks::saw(const WorkloadKey& pod, const std::string& uid, std::uint64_t sequence, SystemTime now) {
  Seen& seen = seen_[uid];
  seen.pod = pod;
  seen.sequence = std::max(seen.sequence, sequence);
  seen.at = now;
}

std::uint64_t BundleAcks::lagging(std::uint64_t sequence, std::chrono::seconds ttl, SystemTime now,
                                  const std::function<bool(const WorkloadKey&, const std::string&)>& exists) {
  examples_.clear();
  std::uint64_t count = 0;
  for (auto at = seen_.begin(); at != seen_.end();) {
    const Seen& seen = at->second;
    if (now - seen.at > ttl || !exists(seen.pod, at->first)) {
      at = seen_.erase(at);
      continue;
    }
    if (seen.sequence < sequence) {
      ++count;
      if (examples_.size() < most_examples) examples_.push_back(seen.pod.text());
    }
    ++at;
  }
  return count;
}

}  // namespace postern
