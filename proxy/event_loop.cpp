#include "proxy/event_loop.hpp"

#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <stdexcept>
#include <system_error>

namespace postern {

void Timer::arm(Clock::duration after) {
  cancel();
  deadline_ = Clock::now() + after;
  index_ = loop_.timers_.size();
  loop_.timers_.push_back(this);
  loop_.heap_up(index_);
}

void Timer::cancel() {
  if (!armed()) return;
  const std::size_t at = index_;
  index_ = npos;
  Timer* last = loop_.timers_.back();
  loop_.timers_.pop_back();
  if (last == this) return;
  loop_.heap_place(at, last);
  loop_.heap_up(at);
  loop_.heap_down(last->index_);
}

EventLoop::EventLoop(DurationHistogram& turn_durations) : turn_durations_(turn_durations) {
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  wakeup_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (epoll_ < 0 || wakeup_ < 0 || !watch(wakeup_, wakeup_watch_)) {
    throw std::system_error(errno, std::generic_category(), "cannot create the event loop");
  }
  now_ = std::chrono::steady_clock::now();
}

EventLoop::~EventLoop() {
  for (Timer* timer : timers_) timer->index_ = Timer::npos;
  close(wakeup_);
  close(epoll_);
}

bool EventLoop::watch(int fd, Watch& watch) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLPRI | EPOLLET;
  event.data.ptr = &watch;
  return epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) == 0;
}

void EventLoop::unwatch(int fd) { epoll_ctl(epoll_, EPOLL_CTL_DEL, fd, nullptr); }

void EventLoop::stop() {
  stopped_.store(true);
  post([] {});
}

void EventLoop::post(std::function<void()> work) {
  {
    const std::lock_guard lock(posted_mutex_);
    posted_.push_back(std::move(work));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(wakeup_, &one, sizeof one);  // full counter: it is awake anyway
}

void EventLoop::run() {
  while (!stopped_.load(std::memory_order_relaxed)) run_once(std::chrono::hours(1));
}

void EventLoop::run_once(std::chrono::milliseconds at_most) {
  std::array<epoll_event, 128> events;
  const int n = epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), timeout_ms(at_most));
  now_ = std::chrono::steady_clock::now();
  // First mark, then run: what runs may close descriptors whose events are in this batch, but nothing in the ready list dangles,
  // since a waiter that dies leaves it.
  for (int i = 0; i < n; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    Watch& watch = *static_cast<Watch*>(event.data.ptr);
    if ((event.events & (EPOLLIN | EPOLLPRI | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) != 0) watch.readable = true;
    if ((event.events & (EPOLLOUT | EPOLLHUP | EPOLLERR)) != 0) watch.writable = true;
    if ((event.events & (EPOLLRDHUP | EPOLLHUP)) != 0) watch.hung_up = true;
    if ((event.events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR | EPOLLPRI)) != 0) watch.may_hide = true;
    if ((event.events & EPOLLERR) != 0) watch.failed = true;
    if (watch.waiter != nullptr) make_ready(*watch.waiter);
  }
  run_timers();
  if (wakeup_watch_.readable) run_posted();  // before what is ready: a new policy holds for what is accepted in the same turn
  run_ready();
  if (n > 0) {
    const auto took = std::chrono::steady_clock::now() - now_;
    turn_durations_.observe_us(static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
  }
}

void EventLoop::run_ready() {
  // Only what is ready now: what is made ready meanwhile runs after the next look at the descriptors, so that nobody starves.
  IntrusiveList<Waiter> batch;
  batch.splice_back(ready_);
  while (!batch.empty()) {
    Waiter& waiter = batch.front();
    waiter.unlink();
    waiter.wake();
  }
}

void EventLoop::run_timers() {
  while (!timers_.empty() && timers_.front()->deadline_ <= now_) {
    Timer* timer = timers_.front();
    timer->cancel();
    timer->callback_();
  }
}

void EventLoop::run_posted() {
  wakeup_watch_.readable = false;
  std::uint64_t count = 0;
  [[maybe_unused]] const auto got = read(wakeup_, &count, sizeof count);
  std::vector<std::function<void()>> work;
  {
    const std::lock_guard lock(posted_mutex_);
    work.swap(posted_);
  }
  for (auto& item : work) item();
}

int EventLoop::timeout_ms(std::chrono::milliseconds at_most) const {
  if (!ready_.empty()) return 0;
  auto wait = at_most;
  if (!timers_.empty()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(timers_.front()->deadline_ - std::chrono::steady_clock::now());
    wait = std::clamp(left, std::chrono::milliseconds(0), at_most);
  }
  return static_cast<int>(wait.count());
}

void EventLoop::heap_place(std::size_t i, Timer* timer) {
  timers_[i] = timer;
  timer->index_ = i;
}

void EventLoop::heap_up(std::size_t i) {
  Timer* timer = timers_[i];
  while (i > 0 && timer->deadline_ < timers_[(i - 1) / 2]->deadline_) {
    heap_place(i, timers_[(i - 1) / 2]);
    i = (i - 1) / 2;
  }
  heap_place(i, timer);
}

void EventLoop::heap_down(std::size_t i) {
  Timer* timer = timers_[i];
  for (std::size_t child = 2 * i + 1; child < timers_.size(); child = 2 * i + 1) {
    if (child + 1 < timers_.size() && timers_[child + 1]->deadline_ < timers_[child]->deadline_) ++child;
    if (timers_[child]->deadline_ >= timer->deadline_) break;
    heap_place(i, timers_[child]);
    i = child;
  }
  heap_place(i, timer);
}

}  // namespace postern
