// What /metrics of postern-control answers, in Prometheus' text format (docs/control.md).
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "control/federation.hpp"
#include "control/policy_server.hpp"
#include "control/publisher.hpp"
#include "control/signing_server.hpp"
#include "control/watch_event.hpp"
#include "control/webhook_server.hpp"

namespace postern {

// A histogram with fixed bounds, for durations. One thread.
class DurationBuckets {
 public:
  static constexpr std::array bounds_s{0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0};

  void observe(double seconds);
  std::uint64_t count(std::size_t bucket) const { return counts_[bucket]; }  // the last one: beyond all bounds
  double sum_s() const { return sum_; }

 private:
  std::array<std::uint64_t, bounds_s.size() + 1> counts_{};
  double sum_ = 0;
};

// Of one watched kind.
struct WatchFacts {
  WatchedKind kind = WatchedKind::pods;
  bool synced = false;
  bool watching = false;
  std::uint64_t relists = 0;
  std::uint64_t events = 0;
  std::uint64_t errors = 0;
  std::uint64_t unreadable = 0;
  std::uint64_t asked = 0;
  double silence_seconds = -1;  // since the latest sign of life of the API server; -1: none yet
};

struct WebhookFacts {
  WebhookServer::Stats server;
  std::size_t uninjected = 0;  // pods that should have a sidecar and have none
};

// All numbers at one moment, gathered on the control thread.
struct ControlFacts {
  PolicyServer::Stats server;
  Publisher::Stats publisher;
  std::vector<WatchFacts> watches;
  DurationBuckets flush;
  DurationBuckets edit_to_enforced;
  std::size_t policies = 0;
  std::size_t policies_pending = 0;  // edited, and not yet enforced by all connected sidecars that it concerns
  std::size_t pods = 0;
  std::uint64_t kube_requests = 0;
  std::uint64_t kube_failures = 0;
  std::uint64_t events_written = 0;
  std::uint64_t events_dropped = 0;
  std::uint64_t events_failed = 0;
  std::optional<WebhookFacts> webhooks;
  double svid_expiry_seconds = 0;  // unix time; 0: no SVID
  std::uint64_t identity_rejected = 0;
  bool ticket_keys_shared = false;
  SigningServer::Stats signing;         // of the built-in CA
  double authority_expiry_seconds = 0;  // unix time; 0: no built-in CA
  std::uint64_t bundle_sequence = 0;
  std::uint64_t rotation_steps = 0;
  std::vector<Federation::Facts> federation;  // by trust domain
  bool ready = false;
};

std::string render_metrics(const ControlFacts& facts);

}  // namespace postern
