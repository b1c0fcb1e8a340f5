#include "proxy/plain_relay.hpp"

#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <climits>

#include "proxy/client_hello.hpp"

namespace postern {

namespace {
constexpr std::size_t pipe_bytes = 256U << 10;
}

PipePool::~PipePool() {
  for (const Pipe& pipe : pipes_) discard(pipe);
}

std::optional<PipePool::Pipe> PipePool::take() {
  if (!pipes_.empty()) {
    const Pipe pipe = pipes_.back();
    pipes_.pop_back();
    return pipe;
  }
  int ends[2];
  if (pipe2(ends, O_NONBLOCK | O_CLOEXEC) != 0) return std::nullopt;
  fcntl(ends[1], F_SETPIPE_SZ, static_cast<int>(pipe_bytes));  // refused beyond the user's limit: the default serves as well
  return Pipe{ends[0], ends[1]};
}

void PipePool::give_back(Pipe pipe) {
  if (pipes_.size() < kept_max) return pipes_.push_back(pipe);
  discard(pipe);
}

void PipePool::discard(Pipe pipe) {
  close(pipe.read_end);
  close(pipe.write_end);
}

PlainRelay::PlainRelay(EventLoop& loop, WorkerBuffers& buffers, PipePool& pipes, Socket& app, Socket& peer,
                       std::chrono::milliseconds idle_limit, std::optional<std::chrono::milliseconds> guard_app)
    : Relay(loop, app.watch(), peer.watch(), idle_limit),
      buffers_(buffers),
      pipes_(pipes),
      flows_{Flow{app, peer, from_app_bytes_, {}, 0, false, false}, Flow{peer, app, to_app_bytes_, {}, 0, false, false}},
      guard_(guard_app.has_value()),
      guard_timer_(loop, [this, &loop] {
        end_guard();
        flows_[0].from.watch().readable = true;
        loop.make_ready(*this);
      }) {
  guard(app);
  guard(peer);
  if (guard_) guard_timer_.arm(*guard_app);
}

PlainRelay::~PlainRelay() {
  for (Flow& flow : flows_) {
    if (flow.pipe) PipePool::discard(*flow.pipe);
  }
}

// Also at the deadline the socket must announce every byte again, not only as many as a ClientHello had announced.
void PlainRelay::end_guard() {
  guard_ = false;
  guard_timer_.cancel();
  const int any = 1;
  setsockopt(flows_[0].from.fd(), SOL_SOCKET, SO_RCVLOWAT, &any, sizeof any);
}

bool PlainRelay::guarded() {
  if (!guard_) return false;
  Socket& app = flows_[0].from;
  const IoResult peeked = app.peek(std::span(buffers_.plain).first(16U << 10));
  if (peeked.status == IoStatus::would_block) return true;
  if (peeked.status == IoStatus::ok) {
    const ClientHelloResult hello = parse_client_hello(std::span(buffers_.plain).first(peeked.bytes));
    if (hello.kind == ClientHelloResult::Kind::need_more && !app.watch().hung_up) {
      app.watch().readable = false;  // the bytes stay in the socket: only more of them are news
      const int enough = static_cast<int>(hello.needed);
      setsockopt(app.fd(), SOL_SOCKET, SO_RCVLOWAT, &enough, sizeof enough);
      return true;
    }
    if (hello.kind == ClientHelloResult::Kind::tls && hello.postern_alpn) {
      finish(Reason::stale_record, true);
      return true;
    }
  }
  end_guard();
  return false;
}

bool PlainRelay::pump() {
  bool more = pump_flow(flows_[1], false);
  if (!finished() && !(flows_[0].from.watch().readable && guarded())) more = pump_flow(flows_[0], true) || more;
  if (finished()) return false;
  if (flows_[0].fin_sent && flows_[1].fin_sent) {
    finish(Reason::finished, first_end_by_app_);
    return false;
  }
  // A reset must be noticed while its direction is not being read.
  for (Flow& flow : flows_) {
    const bool reads = !flow.ended && flow.in_pipe == 0;
    if (flow.from.watch().failed && !reads) finish(Reason::reset, &flow == &flows_[0]);
  }
  return more && !finished();
}

bool PlainRelay::drain_pipe(Flow& flow, bool to_is_app) {
  while (flow.in_pipe > 0) {
    if (!flow.to.watch().writable) return false;
    const ssize_t n = splice(flow.pipe->read_end, nullptr, flow.to.fd(), nullptr, flow.in_pipe, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0) {
      if (errno == EAGAIN) {
        flow.to.watch().writable = false;
      } else if (errno != EINTR) {
        finish(Reason::reset, to_is_app);
      }
      return false;
    }
    flow.in_pipe -= static_cast<std::size_t>(n);
  }
  if (flow.pipe) {
    pipes_.give_back(*flow.pipe);
    flow.pipe.reset();
  }
  return true;
}

// splice(2) stops before urgent data and says EAGAIN, whatever follows; recv(2) goes on behind it. The urgent byte itself is dropped, as
// on the TLS path.
ssize_t PlainRelay::read_past_urgent(Flow& flow) {
  const std::span<std::uint8_t> piece = std::span(buffers_.plain).first(PIPE_BUF);  // what every empty pipe takes at once
  const ssize_t n = recv(flow.from.fd(), piece.data(), piece.size(), 0);
  return n > 0 ? write(flow.pipe->write_end, piece.data(), static_cast<std::size_t>(n)) : n;
}

bool PlainRelay::pump_flow(Flow& flow, bool from_app) {
  for (int round = 0; round < rounds_per_wake; ++round) {
    if (!drain_pipe(flow, !from_app)) return false;
    if (flow.ended) {
      if (!flow.fin_sent) flow.to.shutdown_send();
      flow.fin_sent = true;
      return false;
    }
    if (!flow.from.watch().readable) return false;
    if (!flow.pipe) flow.pipe = pipes_.take();
    if (!flow.pipe) {
      finish(Reason::descriptors_exhausted, false);
      return false;
    }
    ssize_t n = splice(flow.from.fd(), nullptr, flow.pipe->write_end, nullptr, pipe_bytes, SPLICE_F_NONBLOCK | SPLICE_F_MOVE);
    if (n < 0 && errno == EAGAIN && flow.from.watch().may_hide) n = read_past_urgent(flow);
    if (n < 0) {
      const int error = errno;
      if (error == EAGAIN) {
        flow.from.watch().readable = false;  // the pipe is empty, so it is the socket that has no more
        drain_pipe(flow, !from_app);         // gives the pipe back
      } else if (error != EINTR) {
        finish(Reason::reset, from_app);
      }
      return false;
    }
    if (n == 0) {
      flow.ended = true;
      if (from_app ? !flows_[1].ended : !flows_[0].ended) first_end_by_app_ = from_app;
    }
    flow.in_pipe += static_cast<std::size_t>(n);
    flow.bytes += static_cast<std::uint64_t>(n);
  }
  return drain_pipe(flow, !from_app) && !finished();
}

void PlainRelay::release_ends() {
  release(flows_[0].from);
  release(flows_[0].to);
}

}  // namespace postern
