// Socket: an owned, non-blocking TCP socket known to the loop. Its address is registered: it does not move.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/ip.hpp"
#include "proxy/config.hpp"
#include "proxy/event_loop.hpp"
#include "proxy/source_ports.hpp"

namespace postern {

enum class IoStatus : std::uint8_t { ok, would_block, end, reset };

struct IoResult {
  IoStatus status = IoStatus::ok;
  std::size_t bytes = 0;
};

class Socket {
 public:
  // Takes ownership. `connected` says that reading and writing may be tried at once.
  Socket(EventLoop& loop, int fd, bool connected);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int fd() const { return fd_; }
  // Gives the descriptor away; the loop forgets it.
  int release();
  Watch& watch() { return watch_; }
  const Watch& watch() const { return watch_; }

  // Never wait. A flag that is clear answers would_block without a system call; a short read or write clears it.
  IoResult read(std::span<std::uint8_t> into);
  IoResult write(std::span<const iovec> from);
  IoResult write(std::span<const std::uint8_t> from);
  IoResult peek(std::span<std::uint8_t> into);

  // FIN: this direction has ended.
  void shutdown_send();
  // Close with RST instead of FIN.
  void abort();
  // Says that the other end is in this pod: congestion control that paces (BBR) costs a timer interrupt for each send, and over
  // loopback there is no path to share. Reno is in every kernel and allowed to everybody (tcp(7)).
  void set_same_pod();
  // Every wait on it ends; what owns it looks at why.
  void cancel();

 private:
  IoResult failed_io(int error, bool& flag);
  EventLoop& loop_;
  int fd_;
  Watch watch_;
};

// Starts a non-blocking connection; -1 with errno. Sets TCP_NODELAY and keepalive. The local port is the next of `ports` that is free;
// where `ports` is null, or has none at once, the kernel chooses.
int open_client_socket(const SocketAddress& to, const Config& config, SourcePortTurn* ports, std::chrono::steady_clock::time_point now,
                       bool& connected);
void set_tcp_options(int fd, const Config& config);

// A listening socket on the address, with SO_REUSEPORT; accepted sockets inherit its TCP options. -1 with errno.
int open_listener(const SocketAddress& at, const Config& config);

SocketAddress local_address(int fd);

}  // namespace postern
