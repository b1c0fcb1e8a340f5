// EventRecorder: Events (events.k8s.io/v1) about objects, for people who look with kubectl. Best effort: bounded, rate-limited, equal ones
// counted together; nothing ever waits for it.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/log.hpp"
#include "control/kube_client.hpp"

namespace postern {

struct ObjectReference {
  std::string api_version;  // "networking.k8s.io/v1"
  std::string kind;         // "NetworkPolicy"
  std::string ns;           // empty for cluster-wide kinds: the Event then goes to the namespace "default"
  std::string name;
  std::string uid;  // empty: unknown
};

struct EventNote {
  bool warning = false;  // type Warning, else Normal
  std::string reason;    // UpperCamel, for machines: "InForce"
  std::string action;    // UpperCamel: what was done: "Distribute"
  std::string note;      // for people; cut at 1024 bytes
};

struct EventRecorderSettings {
  std::string reporting_instance;  // the replica's name
  std::size_t queue = 1000;        // notes that wait; beyond it they are dropped and counted
  double per_second = 10;          // requests in all
  unsigned burst_per_object = 20;  // and for one object, refilled by one every `refill`
  std::chrono::seconds refill{60};
  std::chrono::seconds together{600};  // equal notes within this time are one Event with a count
};

class EventRecorder {
 public:
  // REQUIRES: `io` (one thread), `client` and `log` outlive this.
  EventRecorder(boost::asio::io_context& io, KubeClient& client, EventRecorderSettings settings, Log& log);
  ~EventRecorder();
  EventRecorder(const EventRecorder&) = delete;
  EventRecorder& operator=(const EventRecorder&) = delete;

  void record(const ObjectReference& regarding, EventNote note);
  void stop();

  struct Stats {
    std::uint64_t written = 0;  // made or counted up
    std::uint64_t dropped = 0;  // queue or rate
    std::uint64_t failed = 0;   // refused by the server, or no answer
  };
  Stats stats() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace postern
