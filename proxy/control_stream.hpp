// ControlStream: one WebSocket over mutual TLS to the control plane (docs/stream.md): messages in, messages out. One thread.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "certs/tls_context.hpp"

namespace postern {

// The error message of a connection that nobody answered: something drops its packets.
inline constexpr std::string_view connection_timed_out = "connection timed out";

class ControlStream {
 public:
  struct Timeouts {
    std::chrono::milliseconds connect{3'000};
    std::chrono::milliseconds handshake{5'000};  // TLS, and again the WebSocket's
    std::chrono::milliseconds idle{10'000};      // without a sign of life, pings unanswered: the stream is dead
  };

  // Connects, and verifies that the other end is exactly `control` before a byte is sent.
  static boost::asio::awaitable<Result<std::shared_ptr<ControlStream>>> connect(boost::asio::ip::tcp::endpoint to,
                                                                                std::shared_ptr<const TlsContext> tls, SpiffeId control,
                                                                                Timeouts timeouts);
  virtual ~ControlStream() = default;

  // TLS resumed a session: no certificate was sent or verified.
  virtual bool resumed() const = 0;

  // The next message; an error is the stream's end.
  virtual boost::asio::awaitable<Result<std::string>> read() = 0;
  // Queued and written in order; never waits.
  virtual void send(std::string message) = 0;
  // Called whenever the other end shows that it is alive between messages.
  virtual void on_pong(std::function<void()> call) = 0;
  // Ends a read() under way.
  virtual void close() = 0;
  // Closes when what was given to send() has been written. REQUIRES: no read() is under way.
  virtual void finish() = 0;
};

}  // namespace postern
