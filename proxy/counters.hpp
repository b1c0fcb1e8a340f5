// Plain per-worker counters: one worker writes, the scrape reads (relaxed). Summed only at scrape.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "proxy/reason.hpp"

namespace postern {

enum class Direction : std::uint8_t { inbound, outbound };
std::string_view name_of(Direction direction);

// A number that one thread writes and any thread reads.
class Counter {
 public:
  void add(std::uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed); }
  // Instead of add(), for a counter that more than one thread writes.
  void add_atomically(std::uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
  void subtract(std::uint64_t n = 1) { value_.store(value_.load(std::memory_order_relaxed) - n, std::memory_order_relaxed); }
  void set(std::uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

// Durations in microseconds; bucket bounds in seconds are bounds_s.
class DurationHistogram {
 public:
  static constexpr std::array<double, 12> bounds_s{0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5};
  void observe_us(std::uint64_t us);
  const Counter& bucket(std::size_t i) const { return buckets_[i]; }  // not cumulative; the last one is +Inf
  std::uint64_t sum_us() const { return sum_us_.value(); }

 private:
  std::array<Counter, bounds_s.size() + 1> buckets_;
  Counter sum_us_;
};

enum class VerdictLabel : std::uint8_t { forwarded, dropped, audit };  // Hubble's words; audit: enforced and pending differ
std::string_view name_of(VerdictLabel verdict);                        // FORWARDED, DROPPED, AUDIT

inline constexpr std::size_t direction_count = 2;
inline constexpr std::size_t verdict_count = 3;
inline constexpr std::size_t reason_count = static_cast<std::size_t>(Reason::count_);

struct WorkerCounters {
  std::array<Counter, direction_count> connections_opened;  // application connections (streams), once per record
  std::array<std::array<std::array<Counter, reason_count>, verdict_count>, direction_count> connections_closed;
  std::array<Counter, direction_count> connections_active;
  std::array<Counter, direction_count> bytes_sent;      // towards the peer sidecar or plaintext peer
  std::array<Counter, direction_count> bytes_received;  // from it
  std::array<Counter, direction_count> handshakes_full;
  std::array<Counter, direction_count> handshakes_resumed;
  std::array<std::array<Counter, reason_count>, direction_count> handshakes_failed;
  std::array<Counter, direction_count> handshakes_active;
  std::array<DurationHistogram, direction_count> handshake_duration;
  DurationHistogram connect_duration;
  Counter streams_recycled;                // application connections that needed no new TLS connection (outbound)
  Counter pool_idle;                       // idle pooled connections (outbound)
  Counter accept_pauses;                   // accept stopped for lack of descriptors
  std::array<Counter, reason_count> shed;  // closed at accept, by reason
  Counter access_records_dropped;          // written by the access log's thread, too: add_atomically
  DurationHistogram loop_delay;            // from ready to served
  Counter policy_generation;               // adopted by this worker
};

}  // namespace postern
