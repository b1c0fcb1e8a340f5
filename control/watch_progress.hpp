// WatchProgress: when the API server is asked how far one kind is, because sidecars wait that have seen more of it than this replica's
// watch has told. No I/O. Marks come from sidecars and are not trusted: whatever they say, questions are few.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

namespace postern {

class WatchProgress {
 public:
  using Clock = std::chrono::steady_clock;

  struct Settings {
    std::chrono::milliseconds patience{500};       // a watch that lags by less needs no question
    std::chrono::milliseconds pause_first{2'000};  // between two questions; doubled while they bring nothing
    std::chrono::milliseconds pause_most{10'000};
  };
  explicit WatchProgress(Settings settings) : settings_(settings) {}

  // A sidecar waits until the watch has reached `version`. To be said again while it waits: each question answers what was wanted then.
  void want(std::uint64_t version, Clock::time_point now);
  // When the next question is due, if one is wanted now that the watch has reached `seen`.
  std::optional<Clock::time_point> due(std::uint64_t seen);
  // What to ask for: the smallest version that is wanted, so that one from nowhere never stands before those that exist.
  // REQUIRES: due() is in the past.
  std::uint64_t take(Clock::time_point now);
  // The API server itself has not got as far as `version`: that one, and whatever lies beyond, is not asked for during a pause that grows.
  void refused(std::uint64_t version, Clock::time_point now);

 private:
  Clock::duration pause(unsigned after) const;

  Settings settings_;
  std::optional<std::uint64_t> wanted_;  // the smallest
  Clock::time_point wanted_since_{};
  std::optional<std::uint64_t> asked_;  // last; the watch has not reached it yet
  unsigned in_vain_ = 0;                // questions, in a row
  Clock::time_point next_{};
  std::optional<std::uint64_t> refused_;
  unsigned refusals_ = 0;  // in a row
  Clock::time_point refused_until_{};
};

}  // namespace postern
