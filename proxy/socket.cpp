#include "proxy/socket.hpp"

#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>
#include <utility>

#include "base/sockaddr.hpp"

namespace postern {

Socket::Socket(EventLoop& loop, int fd, bool connected) : loop_(loop), fd_(fd) {
  watch_.readable = watch_.writable = connected;
  if (!loop_.watch(fd_, watch_)) watch_.cancelled = watch_.failed = true;  // out of memory for the kernel: the connection ends
}

Socket::~Socket() {
  if (fd_ >= 0) close(fd_);
}

int Socket::release() {
  loop_.unwatch(fd_);
  return std::exchange(fd_, -1);
}

IoResult Socket::failed_io(int error, bool& flag) {
  if (error == EAGAIN || error == EWOULDBLOCK || error == EINTR) {
    if (error != EINTR) flag = false;
    return {IoStatus::would_block, 0};
  }
  return {IoStatus::reset, 0};
}

IoResult Socket::read(std::span<std::uint8_t> into) {
  if (!watch_.readable) return {IoStatus::would_block, 0};
  const ssize_t n = recv(fd_, into.data(), into.size(), 0);
  if (n < 0) return failed_io(errno, watch_.readable);
  if (n == 0) return {IoStatus::end, 0};
  // A short read has emptied the socket (epoll(7)): no second call just to hear EAGAIN.
  if (static_cast<std::size_t>(n) < into.size() && !watch_.may_hide) watch_.readable = false;
  return {IoStatus::ok, static_cast<std::size_t>(n)};
}

IoResult Socket::peek(std::span<std::uint8_t> into) {
  const ssize_t n = recv(fd_, into.data(), into.size(), MSG_PEEK);
  if (n < 0) return failed_io(errno, watch_.readable);
  if (n == 0) return {IoStatus::end, 0};
  return {IoStatus::ok, static_cast<std::size_t>(n)};
}

IoResult Socket::write(std::span<const iovec> from) {
  if (!watch_.writable) return {IoStatus::would_block, 0};
  msghdr message{};
  message.msg_iov = const_cast<iovec*>(from.data());  // sendmsg takes it non-const, and does not change it
  message.msg_iovlen = from.size();
  const ssize_t n = sendmsg(fd_, &message, MSG_NOSIGNAL);
  if (n < 0) return failed_io(errno, watch_.writable);
  return {IoStatus::ok, static_cast<std::size_t>(n)};
}

IoResult Socket::write(std::span<const std::uint8_t> from) {
  if (!watch_.writable) return {IoStatus::would_block, 0};
  const ssize_t n = send(fd_, from.data(), from.size(), MSG_NOSIGNAL);
  if (n < 0) return failed_io(errno, watch_.writable);
  return {IoStatus::ok, static_cast<std::size_t>(n)};
}

void Socket::shutdown_send() { shutdown(fd_, SHUT_WR); }

void Socket::abort() {
  const linger no_linger{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &no_linger, sizeof no_linger);
}

void Socket::set_same_pod() {
  static constexpr std::string_view reno = "reno";
  setsockopt(fd_, IPPROTO_TCP, TCP_CONGESTION, reno.data(), reno.size());  // where it is refused, the default does
}

void Socket::cancel() {
  watch_.cancelled = true;
  if (watch_.waiter != nullptr) loop_.make_ready(*watch_.waiter);
}

void set_tcp_options(int fd, const Config& config) {
  const auto set = [fd](int level, int name, int value) { setsockopt(fd, level, name, &value, sizeof value); };
  set(IPPROTO_TCP, TCP_NODELAY, 1);
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, static_cast<int>(config.tcp.keepalive_time.count()));
  set(IPPROTO_TCP, TCP_KEEPINTVL, static_cast<int>(config.tcp.keepalive_interval.count()));
  set(IPPROTO_TCP, TCP_KEEPCNT, static_cast<int>(config.tcp.keepalive_probes));
}

namespace {

// Binds to any address and that port; sockets to different destinations may share it.
bool bind_port(int fd, int family, Port port) {
  const IpAddress any = *IpAddress::parse(family == AF_INET ? "0.0.0.0" : "::");
  sockaddr_storage address;
  const socklen_t length = to_sockaddr({any, port}, address);
  const int one = 1;
  return setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
         bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0;
}

// From that port (none: of the kernel's choice). -1 with errno; EADDRNOTAVAIL and EADDRINUSE: this port is taken.
int connect_from(std::optional<Port> from, const SocketAddress& to, const Config& config, bool& connected) {
  sockaddr_storage address;
  const socklen_t length = to_sockaddr(to, address);
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return -1;
  set_tcp_options(fd, config);
  if (from && !bind_port(fd, address.ss_family, *from)) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  connected = connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0;
  if (!connected && errno == EINPROGRESS) {
    // Over loopback the handshake is over by now: asking again says so, and saves a turn of the loop.
    connected = connect(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0 || errno == EISCONN;
    if (connected || errno == EALREADY || errno == EINPROGRESS) return fd;
  } else if (connected) {
    return fd;
  }
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

}  // namespace

int open_client_socket(const SocketAddress& to, const Config& config, SourcePortTurn* ports, std::chrono::steady_clock::time_point now,
                       bool& connected) {
  constexpr int tries = 8;
  for (int i = 0; ports != nullptr && i < tries; ++i) {
    const std::optional<Port> from = ports->next(now);
    if (!from) break;
    const int fd = connect_from(from, to, config, connected);
    if (fd >= 0 || (errno != EADDRNOTAVAIL && errno != EADDRINUSE)) return fd;
  }
  return connect_from(std::nullopt, to, config, connected);
}

int open_listener(const SocketAddress& at, const Config& config) {
  sockaddr_storage address;
  const socklen_t length = to_sockaddr(at, address);
  const int fd = socket(address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, IPPROTO_TCP);
  if (fd < 0) return -1;
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &one, sizeof one);
  if (address.ss_family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one);
  set_tcp_options(fd, config);  // inherited by what is accepted
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), length) == 0 && listen(fd, 4096) == 0) return fd;
  const int error = errno;
  close(fd);
  errno = error;
  return -1;
}

SocketAddress local_address(int fd) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  getsockname(fd, reinterpret_cast<sockaddr*>(&address), &length);
  return from_sockaddr(address);
}

}  // namespace postern
