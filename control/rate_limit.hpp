// RateLimit: token buckets by key, of which no more are kept than are not full. One thread.
#pragma once

#include <chrono>
#include <cstddef>
#include <string>
#include <unordered_map>

namespace postern {

class RateLimit {
 public:
  using Clock = std::chrono::steady_clock;

  RateLimit(double per_second, double burst) : per_second_(per_second), burst_(burst) {}

  // Takes one, if there is one.
  bool take(const std::string& key, Clock::time_point now);
  std::size_t size() const { return buckets_.size(); }

 private:
  struct Bucket {
    double tokens;
    Clock::time_point at;
  };
  double filled(const Bucket& bucket, Clock::time_point now) const;

  double per_second_;
  double burst_;
  std::unordered_map<std::string, Bucket> buckets_;
  std::size_t swept_at_ = 1024;  // buckets at which the full ones are thrown away next
};

}  // namespace postern
