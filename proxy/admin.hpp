// What people and probes ask of a running sidecar: the health port (HTTP) and the admin socket (HTTP over a unix socket, JSON),
// each on a thread of its own, so that a probe never waits for what people ask.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/ip.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "proxy/config.hpp"
#include "proxy/counters.hpp"

namespace postern {

struct Readiness {
  bool ready = false;
  std::string why;  // what is missing, for people
};

// What the admin threads ask of the server; every function may be called from either of them, and may take up to a second.
// What the health port asks (readiness, may_scrape, the probes', facts) should be quick: a probe waits for it.
class AdminBackend {
 public:
  virtual ~AdminBackend() = default;
  virtual Readiness readiness() = 0;
  // May this source address read /metrics? Loopback is answered yes by the caller.
  virtual bool may_scrape(const IpAddress& source) = 0;
  // The ports that a probe of this pod names: the only ones that /app-probe/<port> connects to.
  virtual bool is_probe_port(Port port) = 0;
  // The paths that a probe of this pod names, with their queries: the only ones of /app-probe/http that are served.
  virtual bool is_probe_path(std::string_view path) = 0;
  // May this source address have the application's port asked? The pod's own node, and whom policies let reach it in plaintext; loopback is
  // answered yes by the caller.
  virtual bool may_probe(const IpAddress& source, Port port) = 0;
  virtual std::string config_yaml() = 0;
  virtual std::string connections_json() = 0;  // live connections, gathered from the workers
  virtual std::string allow_list_json() = 0;   // rules, peer sets, generation, warnings
  virtual std::string identities_json() = 0;   // own SVID, bundles, next expiry, last error
  virtual void drain() = 0;
  virtual void set_log_level(LogLevel level) = 0;

  // For the metrics (see metrics.hpp).
  struct ControlFacts {
    bool connected = false;  // to a replica, and in step with it
    std::uint64_t updates = 0;
    std::uint64_t refused = 0;
    std::uint64_t streams = 0;
    std::uint64_t lookups = 0;
  };
  struct Facts {
    double svid_expiry_seconds = 0;  // unix time; 0: no SVID
    double policy_age_seconds = -1;  // since the policy in force was made, or confirmed by the control plane; -1: none
    std::uint64_t policy_generation = 0;
    std::uint64_t policy_rejected = 0;                   // bad policy directories refused so far
    std::uint64_t identity_rejected = 0;                 // bad identity files refused so far
    std::optional<ControlFacts> control = std::nullopt;  // where there is a control plane
  };
  virtual Facts facts() = 0;
};

class AdminServer {
 public:
  // Listens on the health port (all addresses, IPv4 and IPv6; 0: any free one) and the admin socket; starts the threads.
  // REQUIRES: backend, counters and log outlive this; not destroyed from within a backend function.
  static Result<std::unique_ptr<AdminServer>> start(const Config& config, AdminBackend& backend,
                                                    std::vector<const WorkerCounters*> counters, Log& log);
  ~AdminServer();  // waits for a backend function that is running, and removes the socket file

  Port health_port() const;  // as bound

 private:
  struct State;
  explicit AdminServer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace postern
