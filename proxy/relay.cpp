#include "proxy/relay.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>

namespace postern {

ResetCode reset_code(Reason reason) {
  if (reason == Reason::policy_changed) return ResetCode::policy_changed;
  if (reason == Reason::identity_denied) return ResetCode::identity_denied;
  if (reason == Reason::truncated) return ResetCode::truncated;
  if (reason == Reason::idle) return ResetCode::idle;
  if (reason == Reason::drained || reason == Reason::shutdown) return ResetCode::drained;
  if (reason == Reason::reset) return ResetCode::application;
  return ResetCode::internal;
}

Relay::Relay(EventLoop& loop, Watch& app, Watch& peer, std::chrono::milliseconds idle_limit)
    : loop_(loop), app_watch_(app), peer_watch_(peer), idle_limit_(idle_limit), idle_timer_(loop, [this] {
        const std::uint64_t bytes = from_app_bytes_ + to_app_bytes_;
        if (bytes == bytes_at_last_check_) return stop(Reason::idle);
        bytes_at_last_check_ = bytes;
        idle_timer_.arm(idle_limit_);
      }) {
  app_watch_.waiter = this;
  peer_watch_.waiter = this;
  if (idle_limit_.count() > 0) idle_timer_.arm(idle_limit_);
}

Relay::~Relay() {
  if (app_watch_.waiter == this) app_watch_.waiter = nullptr;
  if (peer_watch_.waiter == this) peer_watch_.waiter = nullptr;
}

bool Relay::await_ready() {
  if (app_watch_.cancelled || peer_watch_.cancelled) finish(Reason::internal_error, false, "cancelled");
  const bool more = !finished_ && pump();
  if (more && !finished_) loop_.make_ready(*this);
  return finished_;
}

void Relay::wake() {
  if (finished_) {  // stop() from outside
    if (waiting_) std::exchange(waiting_, nullptr).resume();
    return;
  }
  const bool more = pump();
  if (finished_) {
    if (waiting_) std::exchange(waiting_, nullptr).resume();  // `this` may be gone afterwards
    return;
  }
  if (more) loop_.make_ready(*this);
}

void Relay::stop(Reason reason) {
  if (finished_) return;
  finish(reason, false);
  end_.by_proxy = true;
  loop_.make_ready(*this);
}

void Relay::finish(Reason reason, bool by_app, std::string_view detail) {
  if (finished_) return;
  finished_ = true;
  end_.reason = reason;
  end_.by_app = by_app;
  end_.detail = detail;
  idle_timer_.cancel();
  if (reason == Reason::finished) return release_ends();
  abort_ends();
}

void Relay::release(Socket& socket) {
  const linger off{0, 0};
  setsockopt(socket.fd(), SOL_SOCKET, SO_LINGER, &off, sizeof off);
}

bool TlsRelay::pump() {
  if (!peer_.tls.can_write() && peer_.tls.socket().watch().writable && !peer_.tls.flush()) {
    finish(Reason::reset, false);
    return false;
  }
  bool more = pump_to_app();
  if (!finished()) more = pump_from_app() || more;
  if (!finished()) finish_if_done();
  if (finished()) return false;
  // A reset must be noticed while its direction is not being read.
  if (app_.watch().failed && (app_ended_ || !peer_.tls.can_write())) finish(Reason::reset, true);
  if (peer_.tls.socket().watch().failed && !app_pending_.empty()) finish(Reason::reset, false);
  return more;
}

bool TlsRelay::pump_from_app() {
  const bool more = gather_from_app();
  // Also after an end: what was gathered belongs to this connection and must not stay behind.
  if (!peer_.tls.flush() && !finished()) finish(Reason::reset, false);
  return more && !finished() && peer_.tls.can_write();
}

bool TlsRelay::gather_from_app() {
  const std::size_t header = peer_.framed ? frame_header_bytes : 0;
  for (int round = 0; round < rounds_per_wake; ++round) {
    if (app_ended_ || !app_.watch().readable) return false;
    if (peer_.tls.should_flush() && !peer_.tls.flush()) return false;  // fails again at the end
    if (!peer_.tls.can_write()) return false;
    const std::span<std::uint8_t> payload(buffers_.frame.data() + header, WorkerBuffers::frames * (frame_bytes_max - header));
    std::size_t bytes = 0;
    IoResult got = app_.read(payload);
    // When the end is known to follow, it travels with the data.
    while (got.status == IoStatus::ok) {
      bytes += got.bytes;
      if (!app_.watch().hung_up || bytes == payload.size()) break;
      got = app_.read(payload.subspan(bytes));
    }
    if (got.status == IoStatus::reset) {
      finish(Reason::reset, true);
      return false;
    }
    if (bytes == 0 && got.status == IoStatus::would_block) return false;
    from_app_bytes_ += bytes;
    app_ended_ = got.status == IoStatus::end;
    if (app_ended_ && !peer_ended_) first_end_by_app_ = true;
    if (!send_frames(bytes)) {
      finish(Reason::reset, false);
      return false;
    }
  }
  return !app_ended_ && app_.watch().readable;
}

// Each header is written right before its payload: over the last bytes of the frame before it, which are encrypted by then.
bool TlsRelay::send_frames(std::size_t bytes) {
  const std::size_t header = peer_.framed ? frame_header_bytes : 0;
  std::uint8_t* at = buffers_.frame.data();
  do {
    const std::size_t payload = std::min(bytes, frame_bytes_max - header);
    bytes -= payload;
    std::size_t out = 0;
    if (payload > 0) {
      if (peer_.framed) {
        const auto data = frame_header(FrameType::data, payload);
        std::copy(data.begin(), data.end(), at);
      }
      out = header + payload;
    }
    if (bytes == 0 && app_ended_ && peer_.framed) {
      const auto end = frame_header(FrameType::end, 0);
      std::copy(end.begin(), end.end(), at + out);
      out += end.size();
    }
    if (!peer_.tls.write({at, out})) return false;
    at += payload;
  } while (bytes > 0);
  return !app_ended_ || peer_.framed || peer_.tls.send_close_notify();
}

bool TlsRelay::pump_to_app() {
  for (int round = 0; round < rounds_per_wake; ++round) {
    if (!app_pending_.empty()) {
      const IoResult wrote = app_.write(std::span(app_pending_).subspan(app_pending_sent_));
      if (wrote.status == IoStatus::reset) {
        finish(Reason::reset, true);
        return false;
      }
      app_pending_sent_ += wrote.bytes;
      if (app_pending_sent_ < app_pending_.size()) return false;
      app_pending_ = {};
      app_pending_sent_ = 0;
    }
    forward_end();
    if (peer_ended_ && app_ended_) return false;  // what may follow belongs to the next stream
    std::size_t filled = 0;
    IoResult got{IoStatus::would_block, 0};
    while (filled < buffers_.plain.size() && peer_.may_read()) {
      got = peer_.read(std::span(buffers_.plain).subspan(filled));
      if (got.status != IoStatus::ok) break;
      filled += got.bytes;
    }
    if (filled > 0 && !deliver(std::span(buffers_.plain).first(filled))) {
      if (!finished()) forward_end();
      return false;
    }
    forward_end();
    if (got.status == IoStatus::end || got.status == IoStatus::reset) {
      if (got.status == IoStatus::end && !peer_.framed) {
        peer_ended_ = true;
        forward_end();
        return false;
      }
      // Frames end with END; anything else is the connection's end, not the application's.
      const bool lost = got.status == IoStatus::end || peer_.tls.truncated();
      finish(lost ? Reason::truncated : Reason::reset, false);
      return false;
    }
    if (filled == 0) return false;
  }
  return peer_.may_read() && app_pending_.empty();
}

bool TlsRelay::deliver(std::span<const std::uint8_t> bytes) {
  if (peer_.framed) return deliver_framed(bytes);
  const iovec piece{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
  return write_to_app(std::span(&piece, 1));
}

bool TlsRelay::deliver_framed(std::span<const std::uint8_t> bytes) {
  std::array<iovec, 32> pieces;
  while (!bytes.empty()) {
    std::size_t count = 0;
    FramePiece piece;
    while (count < pieces.size()) {
      piece = peer_.reader.next(bytes);
      if (piece.kind != FramePiece::Kind::data) break;
      if (peer_ended_) {
        finish(Reason::protocol_error, false, "data after end");
        return false;
      }
      pieces[count++] = {const_cast<std::uint8_t*>(piece.data.data()), piece.data.size()};
    }
    if (count > 0 && !write_to_app(std::span(pieces).first(count)) && finished()) return false;
    if (piece.kind == FramePiece::Kind::malformed) {
      finish(Reason::protocol_error, false, piece.error);
      return false;
    }
    if (piece.kind == FramePiece::Kind::frame && !control_frame(piece, bytes)) return false;
    if (piece.kind == FramePiece::Kind::need_more) break;
  }
  return true;
}

// False: nothing of `rest` is to be read by this relay.
bool TlsRelay::control_frame(const FramePiece& piece, std::span<const std::uint8_t> rest) {
  if (piece.type == FrameType::reset) {
    const auto code = static_cast<ResetCode>(piece.payload[0]);
    if (code == ResetCode::policy_changed) {
      finish(Reason::policy_changed, false, "peer");
    } else if (code == ResetCode::identity_denied) {
      finish(Reason::identity_denied, false, "peer");
    } else {
      finish(code == ResetCode::truncated ? Reason::truncated : Reason::reset, false, name_of(code));
    }
    return false;
  }
  if (piece.type == FrameType::end && !peer_ended_) {
    peer_ended_ = true;
    if (!app_ended_) return true;
    peer_.keep(rest);  // the stream is over: this belongs to the next one
    return false;
  }
  finish(Reason::protocol_error, false, "frame out of order");
  return false;
}

bool TlsRelay::write_to_app(std::span<const iovec> pieces) {
  IoResult wrote;
  if (app_pending_.empty()) wrote = app_.write(pieces);
  if (wrote.status == IoStatus::reset) {
    finish(Reason::reset, true);
    return false;
  }
  std::size_t skip = wrote.bytes;
  for (const iovec& piece : pieces) {
    to_app_bytes_ += piece.iov_len;
    const std::size_t sent = std::min(skip, piece.iov_len);
    skip -= sent;
    const auto* begin = static_cast<const std::uint8_t*>(piece.iov_base);
    app_pending_.insert(app_pending_.end(), begin + sent, begin + piece.iov_len);
  }
  return app_pending_.empty();
}

// The peer's END becomes a FIN once everything before it has been delivered.
void TlsRelay::forward_end() {
  if (!peer_ended_ || fin_sent_ || !app_pending_.empty()) return;
  app_.shutdown_send();
  fin_sent_ = true;
}

void TlsRelay::finish_if_done() {
  if (app_ended_ && peer_ended_ && fin_sent_ && peer_.tls.can_write()) finish(Reason::finished, first_end_by_app_);
}

void TlsRelay::abort_ends() {
  if (peer_.framed) {
    const std::array payload{static_cast<std::uint8_t>(reset_code(end().reason))};
    // Behind bytes that the peer does not take now, RESET would wait for them: TCP's own reset does not.
    if (!peer_.tls.can_write()) return peer_.tls.socket().abort();
    peer_.send_control(FrameType::reset, payload);
    peer_.aborted = true;
  } else {
    peer_.tls.socket().abort();
  }
}

}  // namespace postern
