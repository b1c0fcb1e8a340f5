// The module's inside: one thread that reads the stream, and begins it again with back-off when it ends.
#include <grpcpp/grpcpp.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <csignal>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <system_error>
#include <thread>

#include "certs/workload_api/client.hpp"
#include "workload_api.grpc.pb.h"

namespace postern {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds first_backoff{250};
constexpr milliseconds longest_backoff{15'000};
constexpr std::chrono::seconds first_answer{10};  // a server that has nothing for us says so; one that is silent for so long is stuck
constexpr milliseconds between_updates{100};      // of a server that floods us, the newest: each new SVID is new TLS contexts
constexpr std::size_t max_failure_bytes = 512;    // of the other side's text, for the log

std::string_view name_of(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::OK: return "OK";
    case grpc::StatusCode::CANCELLED: return "CANCELLED";
    case grpc::StatusCode::INVALID_ARGUMENT: return "INVALID_ARGUMENT";
    case grpc::StatusCode::DEADLINE_EXCEEDED: return "DEADLINE_EXCEEDED";
    case grpc::StatusCode::PERMISSION_DENIED: return "PERMISSION_DENIED";
    case grpc::StatusCode::RESOURCE_EXHAUSTED: return "RESOURCE_EXHAUSTED";
    case grpc::StatusCode::UNIMPLEMENTED: return "UNIMPLEMENTED";
    case grpc::StatusCode::UNAVAILABLE: return "UNAVAILABLE";
    case grpc::StatusCode::INTERNAL: return "INTERNAL";
    case grpc::StatusCode::UNKNOWN:
    case grpc::StatusCode::NOT_FOUND:
    case grpc::StatusCode::ALREADY_EXISTS:
    case grpc::StatusCode::UNAUTHENTICATED:
    case grpc::StatusCode::FAILED_PRECONDITION:
    case grpc::StatusCode::ABORTED:
    case grpc::StatusCode::OUT_OF_RANGE:
    case grpc::StatusCode::DATA_LOSS:
    case grpc::StatusCode::DO_NOT_USE: break;
  }
  return "error";
}

std::string text_of(const grpc::Status& status) {
  if (status.ok()) return "the Workload API ended the stream";
  return std::string(name_of(status.error_code())) + " (" + std::to_string(status.error_code()) +
         "): " + status.error_message().substr(0, max_failure_bytes);
}

// Takes the message's strings, so that no second copy of a key is left in it.
WorkloadUpdate take_update(X509SVIDResponse& message) {
  WorkloadUpdate update;
  for (X509SVID& svid : *message.mutable_svids()) {
    WorkloadSvid& taken = update.svids.emplace_back();
    taken.spiffe_id = std::move(*svid.mutable_spiffe_id());
    taken.chain = std::move(*svid.mutable_x509_svid());
    taken.key.swap(*svid.mutable_x509_svid_key());
    taken.bundle = std::move(*svid.mutable_bundle());
    taken.hint = std::move(*svid.mutable_hint());
  }
  for (auto& [domain, bundle] : *message.mutable_federated_bundles()) update.federated_bundles.emplace_back(domain, std::move(bundle));
  return update;
}

enum class Event : std::uint8_t { done, failed, late };

// One operation of the call at a time, waited for with a deadline: gRPC's synchronous calls know none but the whole call's.
struct Events {
  Events() = default;
  Events(const Events&) = delete;
  Events& operator=(const Events&) = delete;
  ~Events() {
    queue.Shutdown();
    while (next() != Event::failed) {
    }
  }

  Event next(std::chrono::system_clock::time_point until = std::chrono::system_clock::time_point::max()) {
    void* tag = nullptr;
    bool ok = false;
    const auto got = queue.AsyncNext(&tag, &ok, until);
    if (got == grpc::CompletionQueue::TIMEOUT) return Event::late;
    return got == grpc::CompletionQueue::GOT_EVENT && ok ? Event::done : Event::failed;
  }

  grpc::CompletionQueue queue;
};

class Stream final : public WorkloadApiClient {
 public:
  explicit Stream(std::string target) : target_(std::move(target)), fd_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
    if (fd_ < 0) throw std::system_error(errno, std::generic_category(), "eventfd");
    // The thread, and those that gRPC starts from it, take no signal: they are the main thread's.
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      thread_ = std::thread([this] { run(); });
    } catch (...) {
      pthread_sigmask(SIG_SETMASK, &before, nullptr);
      close(fd_);
      throw;
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  ~Stream() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      if (call_ != nullptr) call_->TryCancel();
    }
    stopped_.notify_all();
    thread_.join();
    close(fd_);
  }

  int fd() const override { return fd_; }

  WorkloadEvents take() override {
    const std::lock_guard lock(mutex_);
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t got = read(fd_, &count, sizeof count);
    return std::exchange(events_, {});
  }

 private:
  void run() {
    std::minstd_rand random{std::random_device{}()};
    milliseconds backoff = first_backoff;
    while (true) {
      const auto began = std::chrono::steady_clock::now();
      const grpc::Status status = read_stream();
      // Not after any message: a server that answers and ends the stream at once would be asked as fast as it can.
      if (std::chrono::steady_clock::now() - began > longest_backoff) backoff = first_backoff;
      // Section 6 of the Workload Endpoint: what no retry mends.
      const bool hopeless =
          status.error_code() == grpc::StatusCode::INVALID_ARGUMENT || status.error_code() == grpc::StatusCode::UNIMPLEMENTED;
      std::unique_lock lock(mutex_);
      if (stopping_) return;
      events_.failure = text_of(status);
      events_.gave_up = hopeless;
      notify();
      if (hopeless) return;
      // Half of it to all of it, so that the sidecars of a node do not come back all at once.
      const milliseconds wait(std::uniform_int_distribution<std::int64_t>(backoff.count() / 2, backoff.count())(random));
      if (stopped_.wait_for(lock, wait, [this] { return stopping_; })) return;
      backoff = std::min(2 * backoff, longest_backoff);
    }
  }

  // Until the stream ends, or nothing has come for too long.
  grpc::Status read_stream() {
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(static_cast<int>(max_workload_update_bytes));
    arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);  // the back-off is ours: not that of an earlier channel
    // Workload Endpoint section 3.1: no TLS; the kernel says who asks and who answers.
    const auto channel = grpc::CreateCustomChannel(target_, grpc::InsecureChannelCredentials(), arguments);
    const auto stub = SpiffeWorkloadAPI::NewStub(channel);
    grpc::ClientContext call;
    call.AddMetadata("workload.spiffe.io", "true");  // Workload Endpoint section 3
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) return grpc::Status::CANCELLED;
      call_ = &call;
    }
    Events events;
    const auto reader = stub->AsyncFetchX509SVID(&call, X509SVIDRequest(), &events.queue, nullptr);
    X509SVIDResponse message;
    const auto until = std::chrono::system_clock::now() + first_answer;
    Event event = events.next(until);
    if (event == Event::done) {
      reader->Read(&message, nullptr);
      event = events.next(until);
    }
    const bool silent = event == Event::late;
    if (silent) {
      call.TryCancel();
      event = events.next();
    }
    std::optional<WorkloadUpdate> newest;
    std::chrono::system_clock::time_point hand_over_at;  // at once, at first
    while (event != Event::failed && !silent) {
      if (event == Event::done) {
        newest = take_update(message);
        message.Clear();
        reader->Read(&message, nullptr);
      }
      const auto now = std::chrono::system_clock::now();
      if (newest && now >= hand_over_at) {
        hand_over(*std::exchange(newest, std::nullopt));
        hand_over_at = now + between_updates;
      }
      event = newest ? events.next(hand_over_at) : events.next();
    }
    if (newest) hand_over(*std::move(newest));
    grpc::Status status;
    reader->Finish(&status, nullptr);
    events.next();
    const std::lock_guard lock(mutex_);
    call_ = nullptr;
    if (silent) return {grpc::StatusCode::DEADLINE_EXCEEDED, "no answer for " + std::to_string(first_answer.count()) + " s"};
    return status;
  }

  void hand_over(WorkloadUpdate update) {
    const std::lock_guard lock(mutex_);
    events_.update = std::move(update);
    events_.failure.clear();
    notify();
  }

  void notify() const {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t wrote = write(fd_, &one, sizeof one);
  }

  const std::string target_;
  const int fd_;
  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  grpc::ClientContext* call_ = nullptr;
  WorkloadEvents events_;
  std::thread thread_;
};

}  // namespace
}  // namespace postern

extern "C" {

__attribute__((visibility("default"))) extern const char postern_workload_api_version[];
const char postern_workload_api_version[] = POSTERN_VERSION;

__attribute__((visibility("default"))) postern::WorkloadApiClient* postern_workload_api_client(const char* target) {
  try {
    return new postern::Stream(target);
  } catch (const std::exception&) {
    return nullptr;
  }
}
}
