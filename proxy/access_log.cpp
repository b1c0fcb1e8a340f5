#include "proxy/access_log.hpp"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstring>
#include <thread>

#include "proxy/access_log_queue.hpp"

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t batch_bytes = std::size_t{64} << 10;
constexpr std::size_t line_bytes = std::size_t{4} << 10;  // room left for one more line; a longer one makes a longer batch
// While records keep coming the thread looks again after this time instead of sleeping, so that workers need not wake it.
constexpr std::chrono::milliseconds linger{5};
constexpr std::chrono::seconds flush_limit{2};

constexpr std::string_view standard_output = "-";

// Non-blocking, so that neither opening nor writing a named pipe can hold the thread; regular files do not mind.
int open_for_append(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | O_NOCTTY, 0640);
}

bool is_regular(int fd) {
  struct stat status {};
  return ::fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
}

}  // namespace

// The file and what is to be written next. A line is written whole, or not at all, or finished by a later flush().
class AccessLog::Output {
 public:
  Output(std::string path, int fd, std::vector<WorkerCounters*> counters)
      : path_(std::move(path)), fd_(fd), regular_(is_regular(fd)), counters_(std::move(counters)) {}
  Output(const Output&) = delete;
  Output& operator=(const Output&) = delete;
  ~Output() {
    drop(0, lines_.size());
    if (path_ != standard_output) ::close(fd_);
  }

  bool full() const { return buffer_.size() + line_bytes > batch_bytes; }

  void add(std::size_t worker, const AccessRecord& record) {
    const std::size_t before = buffer_.size();
    try {
      append_record(buffer_, record);
      buffer_ += '\n';
      lines_.push_back({buffer_.size(), worker});
    } catch (const std::bad_alloc&) {
      buffer_.resize(before);
      counters_[worker]->access_records_dropped.add_atomically();
    }
  }

  // Writes all there is. `wait_writable(fd)` waits until the descriptor takes something; false: give up. What cannot be written is
  // dropped, but for the rest of a line that has begun.
  template <class WaitWritable>
  void flush(const WaitWritable& wait_writable) {
    std::size_t at = 0;
    while (at < buffer_.size() && (regular_ || wait_writable(fd_))) {
      const ::ssize_t written = ::write(fd_, buffer_.data() + at, piece(at));
      if (written > 0) {
        at += static_cast<std::size_t>(written);
      } else if (written < 0 && errno == EAGAIN) {
        ::poll(nullptr, 0, 1);  // writable, but not for this much
      } else if (written == 0 || errno != EINTR) {
        break;
      }
    }
    settle(at);
  }

  void reopen() {
    if (path_ == standard_output) return;
    const int fd = open_for_append(path_);
    if (fd < 0) return;
    drop(0, lines_.size());  // the rest of a torn line means nothing in another file
    lines_.clear();
    buffer_.clear();
    torn_ = false;
    ::close(fd_);
    fd_ = fd;
    regular_ = is_regular(fd);
  }

 private:
  struct Line {
    std::size_t end;  // in buffer_
    std::size_t worker;
  };

  // How much to write at once. All of it to a file; to a pipe as many whole lines as it takes in one piece (pipe(7): PIPE_BUF), so
  // that a blocking one does not block once it is writable, and another writer's lines (our stderr) fall between ours.
  std::size_t piece(std::size_t at) const {
    if (regular_) return buffer_.size() - at;
    std::size_t end = at;
    for (const Line& line : lines_) {
      if (line.end <= at) continue;
      if (end > at && line.end - at > PIPE_BUF) break;
      end = line.end;
    }
    return std::min<std::size_t>(end - at, PIPE_BUF);
  }

  void drop(std::size_t first, std::size_t last) {
    for (; first < last; ++first) counters_[lines_[first].worker]->access_records_dropped.add_atomically();
  }

  // Bytes up to `at` are written; of the rest only a line that has begun is kept.
  void settle(std::size_t at) {
    std::size_t written = 0;
    while (written < lines_.size() && lines_[written].end <= at) ++written;
    const std::size_t begin = written == 0 ? 0 : lines_[written - 1].end;
    torn_ = written < lines_.size() && (at > begin || (torn_ && written == 0));
    if (!torn_) {
      drop(written, lines_.size());
      lines_.clear();
      buffer_.clear();
      return;
    }
    drop(written + 1, lines_.size());
    const Line rest{lines_[written].end - at, lines_[written].worker};
    buffer_.erase(lines_[written].end);
    buffer_.erase(0, at);
    lines_.assign(1, rest);
  }

  const std::string path_;
  int fd_;
  bool regular_;
  const std::vector<WorkerCounters*> counters_;
  std::string buffer_;
  std::vector<Line> lines_;
  bool torn_ = false;  // the first line in buffer_ is the rest of one
};

struct AccessLog::State {
  std::vector<std::unique_ptr<Queue>> queues;
  std::vector<WorkerCounters*> counters;
  std::unique_ptr<Output> output;  // null: no log
  int wake_fd = -1;
  std::atomic<bool> sleeping{false};
  std::atomic<bool> reopening{false};
  Clock::time_point deadline;  // valid once stopping
  std::atomic<bool> stopping{false};
  std::size_t next_queue = 0;
  std::thread thread;

  ~State() {
    if (wake_fd >= 0) ::close(wake_fd);
  }

  void wake() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ::ssize_t written = ::write(wake_fd, &one, sizeof one);  // fails only when it is signalled anyway
  }

  // Waits until woken, or for `timeout` milliseconds (-1: for good), or until `fd` takes something.
  bool wait(int timeout, int fd = -1) const {
    std::array<::pollfd, 2> waited{{{wake_fd, POLLIN, 0}, {fd, POLLOUT, 0}}};
    if (::poll(waited.data(), waited.size(), timeout) <= 0) return false;
    std::uint64_t signals = 0;
    if (waited[0].revents != 0) [[maybe_unused]]
      const ::ssize_t got = ::read(wake_fd, &signals, sizeof signals);
    return waited[1].revents != 0;  // an error, too: write(2) says which
  }

  bool wait_writable(int fd) const {
    for (;;) {
      int timeout = -1;
      if (stopping.load(std::memory_order_acquire)) {
        const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - Clock::now()).count();
        if (left <= 0) return false;
        timeout = static_cast<int>(left);
      }
      if (wait(timeout, fd)) return true;
    }
  }

  bool any_queued() const {
    return std::any_of(queues.begin(), queues.end(), [](const auto& queue) { return queue->front() != nullptr; });
  }

  // Sleeps unless there is something to do. A producer that does not see `sleeping` has pushed before any_queued() looks (all four
  // accesses are sequentially consistent), and one that does see it signals.
  void sleep() {
    sleeping.store(true, std::memory_order_seq_cst);
    if (!any_queued() && !stopping.load(std::memory_order_seq_cst) && !reopening.load(std::memory_order_seq_cst)) wait(-1);
    sleeping.store(false, std::memory_order_relaxed);
  }

  // Takes records until a batch is full, beginning with another queue each time.
  bool collect() {
    bool any = false;
    for (std::size_t i = 0; i < queues.size(); ++i) {
      const std::size_t worker = (next_queue + i) % queues.size();
      for (AccessRecord* record = nullptr; !output->full() && (record = queues[worker]->front()) != nullptr; queues[worker]->pop()) {
        output->add(worker, *record);
        any = true;
      }
    }
    next_queue = (next_queue + 1) % queues.size();
    return any;
  }

  void run() {
    const auto writable = [this](int fd) { return wait_writable(fd); };
    bool lingered = false;
    for (;;) {
      if (reopening.exchange(false)) output->reopen();
      const bool last = stopping.load(std::memory_order_acquire);  // read first: what was submitted before is collected
      if (collect()) {
        output->flush(writable);
        lingered = false;
      } else if (last) {
        output->flush(writable);  // the rest of a torn line
        return;
      } else if (!lingered) {
        wait(static_cast<int>(linger.count()));
        lingered = true;
      } else {
        sleep();
        lingered = false;
      }
    }
  }
};

AccessLog::AccessLog(std::unique_ptr<State> state) : state_(std::move(state)) {}

Result<std::unique_ptr<AccessLog>> AccessLog::open(const Config& config, std::vector<WorkerCounters*> counters) {
  auto state = std::make_unique<State>();
  const std::string& path = config.access_log.path;
  if (path.empty() || counters.empty()) return std::unique_ptr<AccessLog>{new AccessLog{std::move(state)}};

  const int fd = path == standard_output ? STDOUT_FILENO : open_for_append(path);
  if (fd < 0) {
    const int cause = errno;
    const std::string hint = cause == ENXIO ? " (a named pipe that nobody reads)" : "";
    return Error{"cannot open the access log for writing: " + std::string(std::strerror(cause)) + hint, path + ": accessLog.path"};
  }
  state->output = std::make_unique<Output>(path, fd, counters);
  state->wake_fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (state->wake_fd < 0) return Error{"cannot make an eventfd for the access log: " + std::string(std::strerror(errno)), ""};
  for (std::size_t i = 0; i < counters.size(); ++i) {
    state->queues.push_back(std::make_unique<Queue>(std::max<std::size_t>(config.access_log.queue_records, 1)));
  }
  state->counters = std::move(counters);

  // The thread takes no signal: SIGTERM and SIGUSR1 are for the main thread, and SIGPIPE must not end the process.
  sigset_t all{};
  sigset_t before{};
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_BLOCK, &all, &before);
  state->thread = std::thread{[raw = state.get()] { raw->run(); }};
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_setname_np(state->thread.native_handle(), "access-log");
  return std::unique_ptr<AccessLog>{new AccessLog{std::move(state)}};
}

AccessLog::~AccessLog() {
  if (!state_->output) return;
  state_->deadline = Clock::now() + flush_limit;
  state_->stopping.store(true, std::memory_order_seq_cst);
  state_->wake();
  state_->thread.join();
}

void AccessLog::submit(std::size_t index, AccessRecord&& record) {
  State& state = *state_;
  if (!state.output) return;
  if (!state.queues[index]->push(std::move(record))) {
    state.counters[index]->access_records_dropped.add_atomically();
    return;
  }
  if (state.sleeping.load(std::memory_order_seq_cst) && state.sleeping.exchange(false, std::memory_order_seq_cst)) state.wake();
}

void AccessLog::reopen() {
  if (!state_->output) return;
  state_->reopening.store(true, std::memory_order_seq_cst);
  state_->wake();
}

}  // namespace postern
