#include "control/rate_limit.hpp"

#include <algorithm>

namespace postern {

double RateLimit::filled(const Bucket& bucket, Clock::time_point now) const {
  return std::min(burst_, bucket.tokens + std::chrono::duration<double>(now - bucket.at).count() * per_second_);
}

bool RateLimit::take(const std::string& key, Clock::time_point now) {
  if (buckets_.size() >= swept_at_) {
    std::erase_if(buckets_, [&](const auto& entry) { return filled(entry.second, now) >= burst_; });
    swept_at_ = std::max<std::size_t>(1024, 2 * buckets_.size());
  }
  Bucket& bucket = buckets_.try_emplace(key, Bucket{burst_, now}).first->second;
  bucket.tokens = filled(bucket, now);
  bucket.at = now;
  if (bucket.tokens < 1) return false;
  bucket.tokens -= 1;
  return true;
}

}  // namespace postern
