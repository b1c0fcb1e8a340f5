// What the tests of the data plane share: connected sockets, a loop that runs until something is true, two mTLS identities.
#pragma once

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "proxy/event_loop.hpp"
#include "proxy/peer_connection.hpp"
#include "proxy/relay.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern::test {

// Two ends of a TCP connection over loopback; both non-blocking.
inline std::pair<int, int> tcp_pair() {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof at;
  auto* address = reinterpret_cast<sockaddr*>(&at);
  const int a = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (bind(listener, address, length) != 0 || listen(listener, 1) != 0 || getsockname(listener, address, &length) != 0 ||
      connect(a, address, length) != 0) {
    throw std::runtime_error("no TCP over loopback");
  }
  const int b = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
  close(listener);
  const int one = 1;
  for (const int fd : {a, b}) {
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
  return {a, b};
}

// An end that the test itself holds: closed at the end of the scope.
class TestEnd {
 public:
  explicit TestEnd(int fd) : fd_(fd) {}
  TestEnd(TestEnd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  TestEnd& operator=(TestEnd&&) = delete;
  ~TestEnd() { shut(); }
  void send(std::string_view text) const {
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(text.size())) throw std::runtime_error("short send");
  }
  // What has arrived. After the end `ended`, after a reset `reset`.
  std::string receive() {
    std::string out;
    char buffer[4096];
    while (true) {
      const ssize_t n = recv(fd_, buffer, sizeof buffer, 0);
      if (n == 0) ended = true;
      if (n < 0 && errno == ECONNRESET) reset = true;
      if (n <= 0) return out;
      out.append(buffer, static_cast<std::size_t>(n));
    }
  }
  void end() const { shutdown(fd_, SHUT_WR); }
  void abort() {
    const linger no_linger{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &no_linger, sizeof no_linger);
    shut();
  }
  void shut() {
    if (fd_ >= 0) close(std::exchange(fd_, -1));
  }
  int fd() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }
  bool ended = false;
  bool reset = false;

 private:
  int fd_;
};

// Runs the loop until `condition` holds; false after five seconds.
template <class Condition>
bool run_until(EventLoop& loop, Condition condition) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(5);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    loop.run_once(std::chrono::milliseconds(5));
  }
  return true;
}

// Two pods of one trust domain.
struct Identities {
  TestAuthority authority = TestAuthority::root("root");
  std::shared_ptr<const TlsContext> web = context("web", 1);
  std::shared_ptr<const TlsContext> api = context("api", 1);

  static std::string id(std::string_view name) {
    return "spiffe://example.org/ns/default/sa/default/pod/" + std::string(name) + "/uid-" + std::string(name);
  }
  std::shared_ptr<const TlsContext> context(std::string_view name, std::uint64_t generation) const {
    return std::make_shared<const TlsContext>(
        TlsContext::make(make_context(authority.issue(id(name)), authority), {}, nullptr, generation).value());
  }
};

// Runs a task to its end on the loop, and returns its value.
template <class T>
T run_task(EventLoop& loop, Task<T> task) {
  std::optional<T> result;
  std::exception_ptr failure;
  // Its parameters live in its frame: a lambda's captures would not.
  const auto store = [](Task<T> inner, std::optional<T>& into) -> Task<void> { into = co_await inner; };
  spawn(store(std::move(task), result), [&failure](std::exception_ptr e) { failure = e; });
  run_until(loop, [&] { return result.has_value() || failure != nullptr; });
  if (failure) std::rethrow_exception(failure);
  return result.value();
}

// Both ends of an mTLS connection on one loop, after their handshakes.
struct PeerPair {
  std::unique_ptr<PeerConnection> client;
  std::unique_ptr<PeerConnection> server;

  PeerPair(EventLoop& loop, GatherBuffer& gather, const Identities& identities, bool framed = true) {
    const SocketAddress at{IpAddress::parse("10.0.0.2").value(), Port{80}};
    const auto [a, b] = tcp_pair();
    client = std::make_unique<PeerConnection>(loop, gather, a, true, identities.web, identities.web->new_client(at, framed), at);
    server = std::make_unique<PeerConnection>(loop, gather, b, true, identities.api, identities.api->new_server(!framed),
                                              SocketAddress{IpAddress::parse("10.0.0.1").value(), Port{40000}});
    int done = 0;
    const auto shake = [](PeerConnection& peer, bool is_server, int& finished) -> Task<void> {
      if (co_await peer.tls.handshake(is_server) == HandshakeEnd::done) ++finished;
    };
    const auto rethrow = [](std::exception_ptr e) { std::rethrow_exception(e); };
    spawn(shake(*server, true, done), rethrow);
    spawn(shake(*client, false, done), rethrow);
    if (!run_until(loop, [&] { return done == 2; })) throw std::runtime_error("no handshake");
    client->adopt_handshake();
    server->adopt_handshake();
  }
};

// A relay under way without a coroutine that waits for it.
inline void start_relay(Relay& relay) { relay.await_ready(); }
inline bool is_over(const Relay& relay) { return relay.end().reason != Reason::internal_error; }

}  // namespace postern::test
