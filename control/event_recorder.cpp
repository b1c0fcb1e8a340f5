#include "control/event_recorder.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cstdio>
#include <ctime>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "base/json_writer.hpp"

namespace postern {
namespace asio = boost::asio;

namespace {

using Clock = std::chrono::steady_clock;
using Wall = std::chrono::system_clock;

constexpr std::size_t kNoteBytes = 1024;  // the API's own limit
constexpr std::size_t kRemembered = 4096;
constexpr std::size_t kNameBytes = 220;  // of the 253 that an Event's name may have

// At most `bytes` of it, ending between two characters.
std::string cut(std::string text, std::size_t bytes) {
  if (text.size() <= bytes) return text;
  while (bytes > 0 && (static_cast<unsigned char>(text[bytes]) & 0xC0U) == 0x80U) --bytes;
  text.resize(bytes);
  return text;
}

// RFC 3339 with microseconds: MicroTime.
std::string micro_time(Wall::time_point when) {
  const auto since = std::chrono::duration_cast<std::chrono::microseconds>(when.time_since_epoch());
  const std::time_t seconds = static_cast<std::time_t>(since.count() / 1'000'000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  const std::size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  char fraction[16];
  std::snprintf(fraction, sizeof fraction, ".%06dZ", static_cast<int>(since.count() % 1'000'000));
  return std::string(text, length) + fraction;
}

std::string hexadecimal(std::uint64_t number) {
  char text[17];
  std::snprintf(text, sizeof text, "%llx", static_cast<unsigned long long>(number));
  return text;
}

std::string key_of(const ObjectReference& regarding, const EventNote& note) {
  std::string key = regarding.kind;
  for (const std::string* part : {&regarding.ns, &regarding.name, &regarding.uid, &note.reason, &note.action, &note.note})
    key.append(1, '\0').append(*part);
  return key + (note.warning ? "w" : "n");
}

}  // namespace

class EventRecorder::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, KubeClient& client, EventRecorderSettings settings, Log& log)
      : io_(io),
        client_(client),
        settings_(std::move(settings)),
        log_(log),
        timer_(io),
        sequence_(static_cast<std::uint64_t>(Wall::now().time_since_epoch().count())) {}

  void record(const ObjectReference& regarding, EventNote note) {
    if (stopped_) return;
    note.note = cut(std::move(note.note), kNoteBytes);
    const auto now = Clock::now();
    const std::string key = key_of(regarding, note);
    forget_old(now);
    auto found = remembered_.find(key);
    if (found == remembered_.end()) {
      if (remembered_.size() == kRemembered || queue_.size() >= settings_.queue || !spend(regarding, now)) {
        ++stats.dropped;
        return;
      }
      found = remembered_.emplace(key, Remembered{.regarding = regarding, .note = std::move(note), .event = {}, .seen = now}).first;
    }
    Remembered& one = found->second;
    ++one.count;
    one.seen = now;
    if (one.queued) return;
    // A count alone is written ever more rarely: at 2, 4, 8, ...
    if (one.count > 1 && one.count < 2 * one.written) return;
    if (queue_.size() >= settings_.queue) {
      ++stats.dropped;
      return;
    }
    one.queued = true;
    queue_.push_back(key);
    if (!running_) start();
  }

  void stop() {
    stopped_ = true;
    timer_.cancel();
  }

  Stats stats;

 private:
  struct Remembered {
    ObjectReference regarding;
    EventNote note;
    std::string event;  // its name, once it has been made
    Clock::time_point seen;
    std::uint64_t count = 0;
    std::uint64_t written = 0;  // the count that the server knows
    bool queued = false;
  };
  struct Bucket {
    double tokens;
    Clock::time_point filled;
  };

  void start() {
    running_ = true;
    auto running = run(shared_from_this());
    asio::co_spawn(io_, std::move(running), [](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);
    });
  }

  static asio::awaitable<void> run(std::shared_ptr<Impl> self) {
    while (!self->stopped_ && !self->queue_.empty()) {
      const std::string key = std::move(self->queue_.front());
      self->queue_.pop_front();
      co_await self->write(key);
      if (self->stopped_) break;
      self->timer_.expires_after(std::chrono::microseconds(static_cast<std::int64_t>(1e6 / self->settings_.per_second)));
      co_await self->timer_.async_wait(asio::as_tuple(asio::use_awaitable));
    }
    self->running_ = false;
  }

  // By key and not by reference: others may be remembered or forgotten meanwhile.
  asio::awaitable<void> write(const std::string& key) {
    const auto found = remembered_.find(key);
    if (found == remembered_.end()) co_return;
    found->second.queued = false;
    const std::uint64_t count = found->second.count;
    KubeRequest request = found->second.event.empty() ? make(found->second) : count_up(found->second);
    auto response = co_await client_.request(request);
    if (response && response->status == 404 && request.method == KubeMethod::patch) {  // Events live for an hour
      const auto again = remembered_.find(key);
      if (again == remembered_.end() || stopped_) co_return;
      request = make(again->second);
      response = co_await client_.request(request);
    }
    if (stopped_) co_return;
    const bool written = response && response->ok();
    ++(written ? stats.written : stats.failed);
    if (!written) log_.debug("event_not_written", {{"error", response ? refusal_of(request, *response).text() : response.error().text()}});
    const auto now = remembered_.find(key);
    if (now == remembered_.end()) co_return;
    if (written) now->second.written = count;
    if (!written && request.method == KubeMethod::post) remembered_.erase(now);  // the next one of its kind tries again
  }

  std::string path_of(const ObjectReference& regarding) const {
    return "/apis/events.k8s.io/v1/namespaces/" + (regarding.ns.empty() ? std::string("default") : regarding.ns) + "/events";
  }

  KubeRequest make(Remembered& one) {
    const std::string now = micro_time(Wall::now());
    one.event = cut(one.regarding.name, kNameBytes) + "." + hexadecimal(++sequence_);
    JsonWriter out;
    out.begin_object().field("apiVersion", "events.k8s.io/v1").field("kind", "Event");
    out.key("metadata")
        .begin_object()
        .field("name", one.event)
        .field("namespace", one.regarding.ns.empty() ? "default" : one.regarding.ns)
        .end_object();
    out.field("eventTime", now)
        .field("reportingController", "postern.dev/control")
        .field("reportingInstance", settings_.reporting_instance);
    out.field("type", one.note.warning ? "Warning" : "Normal")
        .field("reason", one.note.reason)
        .field("action", one.note.action)
        .field("note", one.note.note);
    out.key("regarding").begin_object().field("apiVersion", one.regarding.api_version).field("kind", one.regarding.kind);
    out.text("namespace", one.regarding.ns).field("name", one.regarding.name).text("uid", one.regarding.uid).end_object();
    if (one.count > 1) series(out, one.count, now);
    return KubeRequest{.method = KubeMethod::post, .path = path_of(one.regarding), .body = out.end_object().take()};
  }

  KubeRequest count_up(const Remembered& one) const {
    JsonWriter out;
    out.begin_object();
    series(out, one.count, micro_time(Wall::now()));
    return KubeRequest{.method = KubeMethod::patch,
                       .path = path_of(one.regarding) + "/" + one.event,
                       .body = out.end_object().take(),
                       .content_type = "application/merge-patch+json"};
  }

  static void series(JsonWriter& out, std::uint64_t count, const std::string& now) {
    out.key("series").begin_object().field("count", count).field("lastObservedTime", now).end_object();
  }

  // Whether the object has a token left.
  bool spend(const ObjectReference& regarding, Clock::time_point now) {
    const double most = settings_.burst_per_object;
    if (buckets_.size() == kRemembered) buckets_.clear();
    Bucket& bucket = buckets_.try_emplace({regarding.kind, regarding.ns, regarding.name}, Bucket{most, now}).first->second;
    const double refilled = std::chrono::duration<double>(now - bucket.filled) / std::chrono::duration<double>(settings_.refill);
    bucket.tokens = std::min(most, bucket.tokens + refilled);
    bucket.filled = now;
    if (bucket.tokens < 1) return false;
    bucket.tokens -= 1;
    return true;
  }

  void forget_old(Clock::time_point now) {
    if (now - swept_ < std::chrono::seconds(10) && remembered_.size() < kRemembered) return;
    swept_ = now;
    std::erase_if(remembered_, [&](const auto& one) { return !one.second.queued && now - one.second.seen > settings_.together; });
  }

  asio::io_context& io_;
  KubeClient& client_;
  EventRecorderSettings settings_;
  Log& log_;
  asio::steady_timer timer_;
  std::map<std::string, Remembered> remembered_;
  std::map<std::array<std::string, 3>, Bucket> buckets_;
  std::deque<std::string> queue_;
  Clock::time_point swept_;
  std::uint64_t sequence_;  // makes names of Events unique
  bool running_ = false;
  bool stopped_ = false;
};

EventRecorder::EventRecorder(asio::io_context& io, KubeClient& client, EventRecorderSettings settings, Log& log)
    : impl_(std::make_shared<Impl>(io, client, std::move(settings), log)) {}
EventRecorder::~EventRecorder() { impl_->stop(); }
void EventRecorder::record(const ObjectReference& regarding, EventNote note) { impl_->record(regarding, std::move(note)); }
void EventRecorder::stop() { impl_->stop(); }
EventRecorder::Stats EventRecorder::stats() const { return impl_->stats; }

}  // namespace postern
