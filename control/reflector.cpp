#include "control/reflector.hpp"

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "base/back_off.hpp"
#include "control/watch_decoder.hpp"

namespace postern {
namespace asio = boost::asio;

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr unsigned kGone = 410;
constexpr unsigned kRefusals = 4;  // in a row: then the version that we ask for may be one that the server never had
// A watch's bookmark comes two seconds before its end (kube-apiserver, nextBookmarkTime): after one, here.
constexpr std::chrono::seconds kShortWatch{3};
constexpr std::chrono::seconds kLasted{5};  // a watch of that length counts as a success, also where nothing happened

std::string base_path(const ReflectorSettings& settings) {
  switch (settings.kind) {
    case WatchedKind::pods: return "/api/v1/pods";
    case WatchedKind::namespaces: return "/api/v1/namespaces";
    case WatchedKind::network_policies: return "/apis/networking.k8s.io/v1/networkpolicies";
    case WatchedKind::services: return "/api/v1/services";
    case WatchedKind::endpoint_slices: return "/apis/discovery.k8s.io/v1/endpointslices";
    case WatchedKind::nodes: return "/api/v1/nodes";
    case WatchedKind::mesh_config: return "/api/v1/namespaces/" + settings.mesh_config.ns + "/configmaps";
  }
  return {};
}

std::string percent_encoded(std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain =
        (byte >= '0' && byte <= '9') || (byte >= 'A' && byte <= 'Z') || (byte >= 'a' && byte <= 'z') || c == '-' || c == '_' || c == '.';
    if (plain) {
      out += c;
    } else {
      out += '%';
      out += kHex[byte >> 4U];
      out += kHex[byte & 15U];
    }
  }
  return out;
}

}  // namespace

class Reflector::Impl : public std::enable_shared_from_this<Impl> {
 public:
  Impl(asio::io_context& io, KubeClient& client, ReflectorSettings settings, Handlers handlers, Log& log)
      : io_(io),
        client_(client),
        settings_(std::move(settings)),
        handlers_(std::move(handlers)),
        log_(log),
        timer_(io),
        progress_(settings_.progress),
        progress_timer_(io),
        reader_(settings_.kind, settings_.mesh_defaults, handlers_.last_good),
        random_(std::random_device{}()) {}

  void start() {
    auto running = run(shared_from_this());
    asio::co_spawn(io_, std::move(running), [](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);
    });
  }

  void stop() {
    stopped_ = true;
    timer_.cancel();
    progress_timer_.cancel();
  }

  void want(std::uint64_t version) {
    if (stopped_ || version <= stats.version) return;
    progress_.want(version, Clock::now());
    if (std::exchange(asking_, true)) return;
    auto asking = ask_for_progress(shared_from_this());
    asio::co_spawn(io_, std::move(asking), [](std::exception_ptr error) {
      if (error) std::rethrow_exception(error);
    });
  }

  Stats stats;

 private:
  // Where a list is gathered: it counts only once it is complete.
  struct Listing {
    std::vector<WatchEvent> events;
    std::vector<Unreadable> unreadable;
    std::uint64_t version = 0;
  };
  // How a watch went.
  struct Watching {
    bool began = false;     // the server said 200
    bool progress = false;  // an event or bookmark came
    bool gone = false;      // the server no longer has our version, or we lost our place: list anew
    bool refused = false;   // by an ERROR in the stream
    std::string error;
  };

  static asio::awaitable<void> run(std::shared_ptr<Impl> self) {
    while (!self->stopped_) {
      if (!self->listed_) {
        const bool listed = co_await self->list();
        if (!listed) {
          co_await self->back_off();
          continue;
        }
      }
      co_await self->watch();
      if (self->failures_ > 0) co_await self->back_off();
    }
  }

  // ---- listing

  asio::awaitable<bool> list() {
    Listing listing;
    std::string token;
    reader_.begin_list();
    do {
      ListDecoder decoder([&](std::string_view json) { return take_item(json, listing); });
      Result<void> decoded;
      KubeRequest request;
      request.path = base_path(settings_) + "?limit=" + std::to_string(settings_.page) + selector() +
                     (token.empty() ? "" : "&continue=" + percent_encoded(token));
      request.deadline = settings_.list_deadline;
      KubeClient::Sink sink = [&](std::string_view piece) {
        decoded = decoder.feed(piece);
        return static_cast<bool>(decoded) && !stopped_;
      };
      const auto response = co_await client_.stream(request, std::move(sink));
      if (stopped_) co_return false;
      // An expired continue token is a refusal too (410): the whole list is begun anew.
      if (!response || !response->ok() || !decoded) {
        fail("list",
             !response         ? response.error()
             : !response->ok() ? refusal_of(request, *response)
                               : decoded.error(),
             response ? response->retry_after : milliseconds(0));
        co_return false;
      }
      const auto end = decoder.finish();
      if (!end) {
        fail("list", end.error());
        co_return false;
      }
      if (listing.version == 0) listing.version = end->version;
      token = end->continue_token;
    } while (!token.empty());
    deliver(listing);
    co_return true;
  }

  Result<void> take_item(std::string_view json, Listing& listing) {
    const auto object = parse_object(settings_.kind, json, name_of(settings_.kind));
    if (!object) return object.error();
    const auto identity = identity_of(*object);
    if (!identity) return identity.error();
    if (!is_ours(identity->key)) return {};
    auto outcome = reader_.read(*object, *identity);
    if (outcome.object) listing.events.push_back(applied(*identity, std::move(*outcome.object)));
    if (outcome.unreadable) listing.unreadable.push_back(std::move(*outcome.unreadable));
    return {};
  }

  void deliver(Listing& listing) {
    reader_.end_list();
    listed_ = true;
    refusals_ = 0;
    ++stats.relists;
    reached(listing.version);
    for (Unreadable& one : listing.unreadable) report(std::move(one));
    if (settings_.kind == WatchedKind::mesh_config && listing.events.empty()) {
      // A ConfigMap that cannot be read and never could: nothing is known of the mesh's settings, and to guess could open it.
      if (!listing.unreadable.empty()) return;
      listing.events.push_back(defaults_at(listing.version));
    }
    deliver_list(listing.events, listing.version);
    log_.info("listed", {{"resource", name_of(settings_.kind)}, {"objects", std::to_string(listing.events.size())}});
  }

  void deliver_list(std::vector<WatchEvent>& events, std::uint64_t version) {
    emit(event(WatchEvent::Type::relist_began, version));
    for (WatchEvent& event : events) emit(std::move(event));
    emit(event(WatchEvent::Type::relisted, version));
    stats.synced = true;
  }

  // ---- watching

  asio::awaitable<void> watch() {
    Watching now;
    WatchDecoder decoder;
    const bool is_short = std::exchange(short_watch_, false);
    const auto seconds = is_short ? kShortWatch.count()
                                  : std::max<std::int64_t>(1, std::llround(static_cast<double>(settings_.watch_for.count()) * jitter()));
    KubeRequest request;
    request.path = base_path(settings_) + "?watch=1&allowWatchBookmarks=true&timeoutSeconds=" + std::to_string(seconds) +
                   "&resourceVersion=" + std::to_string(stats.version) + selector();
    request.deadline = settings_.watch_idle;
    request.stop = watch_stop_ = std::make_shared<KubeStop>();
    KubeClient::Sink sink = [&](std::string_view piece) { return take_piece(piece, decoder, now); };
    const auto began = Clock::now();
    ++stats.watches;
    const auto response = co_await client_.stream(request, std::move(sink));
    stats.watching = false;
    const bool replaced = std::exchange(watch_stop_, nullptr)->stopped();
    if (stopped_) co_return;
    if (replaced) co_return;  // by a short one, from where this one was
    if (now.progress || (now.began && Clock::now() - began > kLasted)) {
      failures_ = 0;
      waits_.reset();
    }

    if (!response) {
      fail("watch", response.error());
    } else if (!response->ok()) {
      now.gone = response->status == kGone;
      now.refused = true;
      fail("watch", refusal_of(request, *response), response->retry_after);
    } else if (!now.error.empty()) {
      fail("watch", Error{now.error, {}});
    } else if (!decoder.at_boundary()) {
      fail("watch", Error{"the watch was cut off within an object", {}});
    } else if (Clock::now() - began < std::chrono::seconds(1) && !now.progress) {
      fail("watch", Error{"the server ended the watch at once", {}});
    } else {
      stats.last_contact = Clock::now();
    }
    refusals_ = now.refused && !now.gone ? refusals_ + 1 : 0;
    if (now.gone || refusals_ >= kRefusals) listed_ = false;
  }

  // ---- how far the API server is

  static asio::awaitable<void> ask_for_progress(std::shared_ptr<Impl> self) {
    while (!self->stopped_) {
      const auto due = self->progress_.due(self->stats.version);
      if (!due) break;
      if (Clock::now() < *due) {
        self->progress_timer_.expires_at(*due);
        co_await self->progress_timer_.async_wait(asio::as_tuple(asio::use_awaitable));
        continue;
      }
      const std::uint64_t version = self->progress_.take(Clock::now());
      const bool reached = co_await self->api_server_has(version);
      if (!reached) self->progress_.refused(version, Clock::now());
      if (reached && !self->stopped_ && self->stats.version < version) self->watch_shortly();
    }
    self->asking_ = false;
  }

  // The API server answers from its cache, which it first brings up to that version; after 3 s without success it refuses (504). No object
  // has that name: what is asked for is the version alone.
  asio::awaitable<bool> api_server_has(std::uint64_t version) {
    ++stats.asked;
    KubeRequest request;
    request.path = base_path(settings_) + "?limit=1&resourceVersionMatch=NotOlderThan&resourceVersion=" + std::to_string(version) +
                   (settings_.kind == WatchedKind::mesh_config ? selector() : "&fieldSelector=metadata.name%3D-");
    request.deadline = std::chrono::seconds{10};
    const KubeRequest asked = request;
    const auto response = co_await client_.request(std::move(request));
    const bool has = response && response->ok();
    if (!has && !stopped_) {
      log_.info("version_not_reached", {{"resource", name_of(settings_.kind)},
                                        {"version", std::to_string(version)},
                                        {"answer", response ? refusal_of(asked, *response).text() : response.error().text()}});
    }
    co_return has;
  }

  void watch_shortly() {
    short_watch_ = true;
    if (watch_stop_) watch_stop_->stop();
  }

  // Returns whether the watch goes on.
  bool take_piece(std::string_view piece, WatchDecoder& decoder, Watching& now) {
    if (stopped_) return false;
    if (!now.began) {
      now.began = true;
      stats.watching = true;
      stats.last_contact = Clock::now();
      recovered();
    }
    std::vector<WatchLine> lines;
    const auto decoded = decoder.feed(piece, lines);
    for (const WatchLine& line : lines) {
      const auto taken = take_line(line, now);
      if (stopped_) return false;
      if (!taken) {
        now.error = taken.error().text();
        return false;
      }
    }
    if (!decoded) {
      now.error = decoded.error().text();
      now.gone = true;  // where we are in the stream is no longer known
    }
    return static_cast<bool>(decoded);
  }

  Result<void> take_line(const WatchLine& line, Watching& now) {
    if (line.type == WatchLine::Type::error) {
      const ApiStatus status = decode_status(line.object);
      now.gone = status.code == kGone;
      now.refused = true;
      return Error{std::to_string(status.code) + " " + status.reason + ": " + status.message.substr(0, 1000), {}};
    }
    now.gone = true;  // unless it can be read
    const auto object = parse_object(settings_.kind, line.object, name_of(settings_.kind));
    if (!object) return object.error();
    const auto identity = identity_of(*object);
    if (!identity) return identity.error();
    now.gone = false;
    now.progress = true;
    reached(identity->version);
    if (line.type == WatchLine::Type::bookmark) {
      emit(event(WatchEvent::Type::bookmark, identity->version));
      return {};
    }
    ++stats.events;
    if (!is_ours(identity->key)) return {};
    if (line.type == WatchLine::Type::deleted) {
      reader_.forget(identity->key);
      emit_deleted(*identity);
      return {};
    }
    auto outcome = reader_.read(*object, *identity);
    if (outcome.object) {
      emit_applied(applied(*identity, std::move(*outcome.object)));
    } else if (settings_.kind != WatchedKind::mesh_config) {
      emit_deleted(*identity);  // what may stand under its name is another object
    }
    if (outcome.unreadable) report(std::move(*outcome.unreadable));
    return {};
  }

  // ---- what the handlers are told

  WatchEvent event(WatchEvent::Type type, std::uint64_t version, ObjectKey key = {}, WatchedObject object = Pod{},
                   std::string uid = {}) const {
    return {.type = type,
            .kind = settings_.kind,
            .key = std::move(key),
            .version = version,
            .object = std::move(object),
            .uid = std::move(uid)};
  }
  WatchEvent applied(const ObjectIdentity& identity, WatchedObject object) const {
    return event(WatchEvent::Type::applied, identity.version, identity.key, std::move(object), identity.uid);
  }
  WatchEvent defaults_at(std::uint64_t version) const {
    return event(WatchEvent::Type::applied, version, settings_.mesh_config, settings_.mesh_defaults);
  }

  void emit(WatchEvent event) {
    if (!stopped_ && handlers_.on_event) handlers_.on_event(std::move(event));
  }

  void emit_applied(WatchEvent event) {
    if (stats.synced) return emit(std::move(event));
    const std::uint64_t version = event.version;  // the ConfigMap that could not be read when it was listed
    std::vector<WatchEvent> events;
    events.push_back(std::move(event));
    deliver_list(events, version);
  }

  void emit_deleted(const ObjectIdentity& identity) {
    if (settings_.kind == WatchedKind::mesh_config) return emit_applied(defaults_at(identity.version));
    emit(event(WatchEvent::Type::deleted, identity.version, identity.key, Pod{}, identity.uid));
  }

  void report(Unreadable unreadable) {
    ++stats.unreadable;
    log_.warning("object_unreadable",
                 {{"resource", name_of(settings_.kind)}, {"object", unreadable.key.text()}, {"reason", unreadable.reason}});
    if (!stopped_ && handlers_.on_unreadable) handlers_.on_unreadable(std::move(unreadable));
  }

  // ---- failures

  void fail(std::string_view what, const Error& error, milliseconds retry_after = milliseconds(0)) {
    ++stats.errors;
    ++failures_;
    retry_after_ = retry_after;
    stats.last_error = std::string(what) + ": " + error.text();
    // The first, and then ever more rarely: an API server may be away for hours.
    if ((failures_ & (failures_ - 1)) == 0) {
      log_.warning(
          "kubernetes_api_failed",
          {{"resource", name_of(settings_.kind)}, {"during", what}, {"error", error.text()}, {"in_a_row", std::to_string(failures_)}});
    }
  }

  void recovered() {
    if (!stats.last_error.empty()) log_.info("kubernetes_api_answers", {{"resource", name_of(settings_.kind)}});
    stats.last_error.clear();
  }

  asio::awaitable<void> back_off() {
    timer_.expires_after(std::max(waits_.next(random_), std::exchange(retry_after_, milliseconds(0))));
    co_await timer_.async_wait(asio::as_tuple(asio::use_awaitable));
  }

  double jitter() { return std::uniform_real_distribution<double>(0.5, 1.0)(random_); }

  void reached(std::uint64_t version) {
    stats.version = version;
    stats.last_contact = Clock::now();
  }

  bool is_ours(const ObjectKey& key) const { return settings_.kind != WatchedKind::mesh_config || key == settings_.mesh_config; }
  std::string selector() const {
    return settings_.kind == WatchedKind::mesh_config ? "&fieldSelector=metadata.name%3D" + settings_.mesh_config.name : std::string();
  }

  asio::io_context& io_;
  KubeClient& client_;
  const ReflectorSettings settings_;
  const Handlers handlers_;
  Log& log_;
  asio::steady_timer timer_;
  WatchProgress progress_;
  asio::steady_timer progress_timer_;
  bool asking_ = false;                   // ask_for_progress() runs
  bool short_watch_ = false;              // the next watch is
  std::shared_ptr<KubeStop> watch_stop_;  // of the watch that is under way
  ObjectReader reader_;
  std::mt19937_64 random_;
  BackOff waits_{settings_.backoff_first, settings_.backoff_most};
  bool stopped_ = false;
  bool listed_ = false;    // stats.version is one to watch from
  unsigned failures_ = 0;  // in a row
  unsigned refusals_ = 0;  // of watches, in a row
  milliseconds retry_after_{0};
};

Reflector::Reflector(asio::io_context& io, KubeClient& client, ReflectorSettings settings, Handlers handlers, Log& log)
    : impl_(std::make_shared<Impl>(io, client, std::move(settings), std::move(handlers), log)) {}
Reflector::~Reflector() { impl_->stop(); }
void Reflector::start() { impl_->start(); }
void Reflector::stop() { impl_->stop(); }
void Reflector::want(std::uint64_t version) { impl_->want(version); }
Reflector::Stats Reflector::stats() const { return impl_->stats; }

}  // namespace postern
