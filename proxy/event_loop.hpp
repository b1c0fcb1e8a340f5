// EventLoop: one thread's edge-triggered epoll, timers and cross-thread posts. A turn: wait once, mark what became ready,
// run what waited for it. Nothing here is shared between threads but post() and stop().
//
// Why not Asio here: each of its waits is an epoll_ctl and each timer a timerfd_settime; this loop registers a descriptor once.
#pragma once

#include <atomic>
#include <chrono>
#include <coroutine>
#include <cstdint>
#include <functional>
#include <mutex>
#include <vector>

#include "proxy/counters.hpp"
#include "proxy/intrusive_list.hpp"

namespace postern {

// Something to run in a turn of the loop.
class Waiter : public ListHook {
 public:
  virtual void wake() = 0;

 protected:
  ~Waiter() = default;
};

// A descriptor known to the loop. The loop sets the flags when an edge arrives; whoever gets EAGAIN clears them.
struct Watch {
  bool readable = false;
  bool writable = false;
  bool hung_up = false;    // the peer has ended its direction (EPOLLRDHUP)
  bool may_hide = false;   // an end, an error or urgent data: a short read no longer means that nothing is left
  bool failed = false;     // EPOLLERR: reset, or connect failed
  bool cancelled = false;  // given up: every wait on it ends at once
  Waiter* waiter = nullptr;
};

class EventLoop;

// Calls back once at a deadline. Not copyable; dying or cancel() disarms it.
class Timer {
 public:
  using Clock = std::chrono::steady_clock;
  Timer(EventLoop& loop, std::function<void()> callback) : loop_(loop), callback_(std::move(callback)) {}
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;
  ~Timer() { cancel(); }

  // Replaces an earlier deadline.
  void arm(Clock::duration after);
  void cancel();
  bool armed() const { return index_ != npos; }

 private:
  friend class EventLoop;
  static constexpr std::size_t npos = static_cast<std::size_t>(-1);
  EventLoop& loop_;
  std::function<void()> callback_;
  Clock::time_point deadline_;
  std::size_t index_ = npos;  // in the loop's heap
};

class EventLoop {
 public:
  explicit EventLoop(DurationHistogram& turn_durations);
  ~EventLoop();
  EventLoop(const EventLoop&) = delete;
  EventLoop& operator=(const EventLoop&) = delete;

  // Runs turns until stop(). An exception of a waiter is a bug and ends the process; connections catch their own.
  void run();
  // Runs one turn; waits at most this long for something to happen.
  void run_once(std::chrono::milliseconds at_most);

  // Thread-safe.
  void stop();
  void post(std::function<void()> work);

  // Registers the descriptor for every event, edge-triggered. Closing the descriptor ends it. False: errno says why.
  bool watch(int fd, Watch& watch);
  // For a descriptor that lives on without its watch.
  void unwatch(int fd);
  // Runs the waiter in the next turn (or in this one, where it is not yet over).
  void make_ready(Waiter& waiter) {
    if (!waiter.linked()) ready_.push_back(waiter);
  }
  // Time at the start of this turn.
  std::chrono::steady_clock::time_point now() const { return now_; }

 private:
  friend class Timer;
  void run_ready();
  void run_timers();
  void run_posted();
  int timeout_ms(std::chrono::milliseconds at_most) const;
  void heap_up(std::size_t i);
  void heap_down(std::size_t i);
  void heap_place(std::size_t i, Timer* timer);

  int epoll_ = -1;
  int wakeup_ = -1;  // eventfd
  Watch wakeup_watch_;
  std::chrono::steady_clock::time_point now_;
  IntrusiveList<Waiter> ready_;
  std::vector<Timer*> timers_;  // binary heap by deadline
  DurationHistogram& turn_durations_;
  std::atomic<bool> stopped_{false};
  std::mutex posted_mutex_;
  std::vector<std::function<void()>> posted_;
};

// co_await until_ready(loop, a[, b]): suspends until an event, cancellation or failure is marked on either watch. The caller has
// seen EAGAIN (or knows that the flag it needs is clear).
class UntilReady final : public Waiter {
 public:
  UntilReady(Watch& a, Watch* b) : a_(a), b_(b) {}
  ~UntilReady() { detach(); }
  bool await_ready() const { return a_.cancelled || (b_ != nullptr && b_->cancelled); }
  void await_suspend(std::coroutine_handle<> handle) {
    handle_ = handle;
    a_.waiter = this;
    if (b_ != nullptr) b_->waiter = this;
  }
  void await_resume() { detach(); }
  void wake() override { handle_.resume(); }

 private:
  void detach() {
    if (a_.waiter == this) a_.waiter = nullptr;
    if (b_ != nullptr && b_->waiter == this) b_->waiter = nullptr;
  }
  Watch& a_;
  Watch* b_;
  std::coroutine_handle<> handle_;
};
inline UntilReady until_ready(Watch& a) { return UntilReady{a, nullptr}; }
inline UntilReady until_ready(Watch& a, Watch& b) { return UntilReady{a, &b}; }

}  // namespace postern
