// Reflector: keeps one kind's objects in step with the API server: a paginated list, then a watch from its resourceVersion; resumed after
// every end, listed anew where the server no longer has that version (410).
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/log.hpp"
#include "control/kube_client.hpp"
#include "control/kube_objects.hpp"
#include "control/watch_event.hpp"
#include "control/watch_progress.hpp"

namespace postern {

struct ReflectorSettings {
  WatchedKind kind = WatchedKind::pods;
  ObjectKey mesh_config{"postern-system", "postern"};  // only of kind mesh_config: which ConfigMap
  MeshConfig mesh_defaults = {};                       // only of kind mesh_config: where the ConfigMap says nothing, or is absent
  unsigned page = 500;                                 // objects of one answer
  std::chrono::milliseconds list_deadline{60'000};     // from one piece of the answer to the next
  std::chrono::seconds watch_for{600};                 // the server is asked to end a watch after 0.5 to 1 times this
  std::chrono::milliseconds watch_idle{150'000};       // without a byte (the server sends a bookmark each minute): start the watch anew
  std::chrono::milliseconds backoff_first{200};        // doubled for each failure in a row, with jitter
  std::chrono::milliseconds backoff_most{10'000};
  WatchProgress::Settings progress = {};
};

class Reflector {
 public:
  struct Handlers {
    // relist_began, applied ..., relisted come in one go; then applied, deleted and bookmark one by one. Of kind mesh_config only
    // `applied` says anything: an absent ConfigMap is applied as the defaults.
    std::function<void(WatchEvent)> on_event;
    std::function<void(Unreadable)> on_unreadable;
    LastGood last_good;  // what the store has
  };
  // REQUIRES: `io` (one thread), `client` and `log` outlive this. Handlers are called on the thread of `io`.
  Reflector(boost::asio::io_context& io, KubeClient& client, ReflectorSettings settings, Handlers handlers, Log& log);
  ~Reflector();
  Reflector(const Reflector&) = delete;
  Reflector& operator=(const Reflector&) = delete;

  void start();
  void stop();  // no handler is called any more
  // A sidecar has seen this kind up to `version`, and waits until we have: where the watch does not say so soon, the API server is asked
  // whether it has (a list of NotOlderThan that matches nothing), and then a short watch takes the place of this one: the bookmark that
  // comes before its end says that nothing is missing. To be said again while it waits.
  void want(std::uint64_t version);

  struct Stats {
    bool synced = false;        // listed at least once
    bool watching = false;      // a watch is open now
    std::uint64_t relists = 0;  // complete lists, the first one too
    std::uint64_t watches = 0;  // begun
    std::uint64_t events = 0;   // of watches, without bookmarks
    std::uint64_t errors = 0;   // failed lists and watches
    std::uint64_t unreadable = 0;
    std::uint64_t asked = 0;    // how far the API server is, for a sidecar that has seen more
    std::uint64_t version = 0;  // resourceVersion reached
    std::optional<std::chrono::steady_clock::time_point>
        last_contact;        // the latest byte that made sense: list, event, bookmark or end of a watch
    std::string last_error;  // empty while all is well
  };
  Stats stats() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace postern
