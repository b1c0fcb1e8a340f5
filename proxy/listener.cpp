#include "proxy/listener.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "base/sockaddr.hpp"

namespace postern {

Listener::Listener(Worker& worker, Direction direction, int fd)
    : worker_(worker),
      direction_(direction),
      socket_(worker.loop, fd, true),
      retry_(worker.loop, [this] { worker_.loop.make_ready(*this); }) {
  socket_.watch().waiter = this;
  worker_.loop.make_ready(*this);
}

Listener::~Listener() { socket_.watch().waiter = nullptr; }

void Listener::wake() {
  for (int i = 0; i < accepts_per_wake; ++i) {
    sockaddr_storage address{};
    socklen_t length = sizeof address;
    const int fd = accept4(socket_.fd(), reinterpret_cast<sockaddr*>(&address), &length, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
      admit(fd, from_sockaddr(address));
      continue;
    }
    if (errno == EAGAIN) return;
    if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
      // What is established goes on; what waits in the backlog is served when descriptors are back. No spinning meanwhile.
      worker_.counters.accept_pauses.add();
      worker_.shed(direction_, Reason::descriptors_exhausted, {});
      retry_.arm(std::chrono::milliseconds(50));
      return;
    }
    // Anything else concerns one connection that is gone already (accept(2)).
  }
  worker_.loop.make_ready(*this);
}

void Listener::admit(int fd, const SocketAddress& source) {
  const Reason refused = worker_.may_admit(direction_, source.address);
  if (refused != Reason::finished) {
    worker_.shed(direction_, refused, source);
    const linger no_linger{1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &no_linger, sizeof no_linger);
    close(fd);
    return;
  }
  const Accepted accepted{fd, source, worker_.loop.now()};
  start(worker_, direction_ == Direction::inbound ? serve_inbound(worker_, accepted) : serve_outbound(worker_, accepted));
}

}  // namespace postern
