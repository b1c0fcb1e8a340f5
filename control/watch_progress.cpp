#include "control/watch_progress.hpp"

#include <algorithm>
#include <utility>

namespace postern {

void WatchProgress::want(std::uint64_t version, Clock::time_point now) {
  if (refused_ && now < refused_until_ && version >= *refused_) return;
  if (!wanted_) wanted_since_ = now;
  wanted_ = std::min(version, wanted_.value_or(version));
}

std::optional<WatchProgress::Clock::time_point> WatchProgress::due(std::uint64_t seen) {
  if (asked_ && *asked_ <= seen) {
    asked_.reset();
    in_vain_ = 0;
    refusals_ = 0;
  }
  if (wanted_ && *wanted_ <= seen) wanted_.reset();
  if (!wanted_) return std::nullopt;
  return std::max(wanted_since_ + settings_.patience, next_);
}

WatchProgress::Clock::duration WatchProgress::pause(unsigned after) const {
  return std::min(settings_.pause_most, settings_.pause_first * (1U << std::min(after, 8U)));
}

std::uint64_t WatchProgress::take(Clock::time_point now) {
  const std::uint64_t version = *std::exchange(wanted_, std::nullopt);
  asked_ = version;
  next_ = now + pause(in_vain_++);
  return version;
}

void WatchProgress::refused(std::uint64_t version, Clock::time_point now) {
  refused_ = version;
  refused_until_ = now + pause(refusals_++);
  next_ = now + pause(0);  // those that exist wait no longer for it
  in_vain_ = 0;
  asked_.reset();
  if (wanted_ && *wanted_ >= version) wanted_.reset();
}

}  // namespace postern
