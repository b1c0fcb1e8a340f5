// What people and probes ask of a running control plane: the health port (HTTP, read only) and the admin socket (HTTP over a unix socket),
// each on a thread of its own.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "base/ip.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "control/config.hpp"

namespace postern {

// Every function may be called from any thread, and may take up to a second.
class ControlAdminBackend {
 public:
  virtual ~ControlAdminBackend() = default;
  // What is missing, for people; empty: ready.
  virtual std::string not_ready() = 0;
  // Nothing: the control thread did not answer within a second.
  virtual std::optional<std::string> metrics() = 0;
  virtual std::optional<std::string> policies_json(std::string_view ns, std::string_view name) = 0;  // empty: all
  virtual std::optional<std::string> streams_json() = 0;
  virtual std::optional<std::string> unconnected_json() = 0;
  virtual std::optional<std::string> authority_json() = 0;    // empty: there is no built-in CA
  virtual std::optional<std::string> rotate_authority() = 0;  // empty: begun; else why not
  virtual std::string config_yaml() = 0;
};

class ControlAdmin {
 public:
  // Listens and starts the threads. REQUIRES: all outlive this; not destroyed from within a backend function.
  static Result<std::unique_ptr<ControlAdmin>> start(const ControlConfig& config, ControlAdminBackend& backend, Log& log);
  ~ControlAdmin();

  Port health_port() const;  // as bound

 private:
  struct State;
  explicit ControlAdmin(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace postern
