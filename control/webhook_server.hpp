// WebhookServer: the admission webhooks over HTTPS, on a thread of their own: POST /inject and POST /validate, each with an
// AdmissionReview. A request that cannot be read is answered 400 and changes nothing: with failurePolicy Fail its pod is refused.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "base/listening_socket.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "control/injection_settings.hpp"

namespace postern {

class WebhookServer {
 public:
  struct Limits {
    std::size_t connections = 64;                // one more closes the oldest idle one
    std::chrono::milliseconds handshake{5'000};  // TLS
    std::chrono::milliseconds request{5'000};    // from its first byte to the answer's last; webhooks have 5 s in all
    std::chrono::milliseconds idle{60'000};      // API servers keep connections
  };
  struct Stats {
    std::uint64_t injected = 0;
    std::uint64_t left_alone = 0;
    std::uint64_t denied = 0;
    std::uint64_t validated = 0;  // and found as injected
    std::uint64_t malformed = 0;
    std::uint64_t handshakes_failed = 0;
  };

  // Serves nothing before use_certificate() and use_settings(). REQUIRES: `log` outlives this.
  WebhookServer(ListeningSocket socket, Log& log, Limits limits);
  ~WebhookServer();
  WebhookServer(const WebhookServer&) = delete;
  WebhookServer& operator=(const WebhookServer&) = delete;

  // From the next connection on. PEM; an Error leaves the last good one in use. Any thread.
  Result<void> use_certificate(const std::string& chain_pem, const std::string& key_pem);
  // From the next request on. Any thread.
  void use_settings(InjectionSettings settings);
  bool ready() const;
  Stats stats() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern
