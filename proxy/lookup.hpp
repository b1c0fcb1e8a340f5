// Look-ups: what is at an address that the snapshot does not know? Workers ask, the policy client's thread sends and answers
// (architecture section 5). Only where there is a control plane; known peers never come here.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "authz/stream_messages.hpp"
#include "proxy/task.hpp"

namespace postern {

class Worker;

class Lookups {
 public:
  using Clock = std::chrono::steady_clock;
  static constexpr std::size_t pending_max = 256;
  static constexpr std::size_t absent_max = 4096;
  static constexpr std::chrono::seconds absent_for{1};  // how long "nothing is there" is remembered

  // `wake` is called from workers when there is something to send. `timeout` is how long a connection waits.
  Lookups(std::function<void()> wake, std::chrono::milliseconds timeout) : wake_(std::move(wake)), timeout_(timeout) {}

  // Any worker: `answered` will be called, once and from another thread, when it is known what is there, or at the latest soon after the
  // timeout. Questions for one address are asked once. False: nothing was there a moment ago, or too many are pending; do not wait.
  bool ask(const IpAddress& address, std::function<void()> answered, Clock::time_point now);

  // The client's thread: the questions to send now. Those that nobody waits for any more are dropped. `again`: a new stream has begun
  // and all of them are to be asked on it.
  std::vector<Lookup> take(Clock::time_point now, bool again);
  void answer(const LookupAnswer& answer, Clock::time_point now);

  std::chrono::milliseconds timeout() const { return timeout_; }
  std::uint64_t asked() const;

 private:
  struct Pending {
    std::uint64_t id = 0;
    Clock::time_point since;
    bool sent = false;
    std::vector<std::function<void()>> waiting;
  };

  const std::function<void()> wake_;
  const std::chrono::milliseconds timeout_;
  mutable std::mutex mutex_;
  std::unordered_map<IpAddress, Pending, IpAddressHash> pending_;
  std::unordered_map<IpAddress, Clock::time_point, IpAddressHash> absent_;  // until when
  std::uint64_t last_id_ = 0;
};

// Waits until the worker's snapshot knows what is at the address, or nothing is, or the time is up. At once where there is no control
// plane.
Task<void> look_up(Worker& worker, IpAddress address);

}  // namespace postern
