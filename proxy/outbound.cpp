// Outbound: connections that the application of this pod makes, from accept to close.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/connection.hpp"
#include "proxy/lookup.hpp"
#include "proxy/original_destination.hpp"

namespace postern {

namespace {

// How one attempt to reach an endpoint ended.
struct Attempt {
  enum class Kind : std::uint8_t {
    established,    // `peer` carries the stream
    try_next,       // this endpoint did not act on anything: another one may be tried
    try_again,      // a recycled connection had been closed: a new one to the same endpoint
    resolve_again,  // somebody else answered: the record may have changed meanwhile
    failed,
  };
  Kind kind = Kind::failed;
  std::unique_ptr<PeerConnection> peer;
  Reason reason = Reason::finished;
  std::string_view detail;
};

Attempt failed(Reason reason, std::string_view detail = {}) {
  Attempt attempt;
  attempt.reason = reason;
  attempt.detail = detail;
  return attempt;
}

// One application connection: what its attempts share.
struct Outgoing {
  Worker& worker;
  Socket& app;
  Record& record;
  Stream& stream;
  Destination destination;
  std::uint32_t pick;
  // The application's first bytes, sent before STATUS and kept until it arrives: at most early_data_max.
  std::vector<std::uint8_t> early;
};

// A new mTLS connection to the destination.
Task<Attempt> connect_peer(Outgoing& out, bool framed) {
  Worker& worker = out.worker;
  if (!worker.tls || !worker.tls->usable(std::chrono::system_clock::now())) co_return failed(Reason::svid_missing);
  const SocketAddress to = out.destination.address;
  Connected connected = co_await connect_socket(worker, to, out.stream, Reason::connect_failed, Reason::connect_timeout);
  if (!connected.socket) {
    Attempt attempt = failed(connected.failed, connected.detail);
    if (!out.stream.revoked()) attempt.kind = Attempt::Kind::try_next;
    co_return attempt;
  }
  const int fd = connected.socket->release();
  connected.socket.reset();
  auto peer =
      std::make_unique<PeerConnection>(worker.loop, worker.buffers.gather, fd, true, worker.tls, worker.tls->new_client(to, framed), to);
  out.stream.waits_on(&peer->tls.socket());
  const HandshakeOutcome outcome = co_await run_handshake(worker, *peer, Direction::outbound);
  out.stream.waits_on(nullptr);
  if (out.stream.revoked()) co_return failed(out.stream.why());
  if (outcome.reason != Reason::finished) {
    Attempt attempt = failed(outcome.reason, outcome.detail);
    close_gracefully(worker, std::move(peer));
    co_return attempt;
  }
  Attempt attempt;
  if (peer->framed != framed) co_return failed(Reason::alpn_mismatch);
  attempt.kind = Attempt::Kind::established;
  attempt.peer = std::move(peer);
  co_return attempt;
}

// Sends on what the application has for us, as far as early data goes. `reset`: the application's; `end`: the peer's.
IoStatus send_early(Outgoing& out, PeerConnection& peer) {
  const std::size_t room = early_data_max - out.early.size();
  if (room == 0 || !out.app.watch().readable || !peer.tls.can_write()) return IoStatus::would_block;
  const std::span<std::uint8_t> payload(out.worker.buffers.frame.data() + frame_header_bytes, room);
  const IoResult got = out.app.read(payload);
  if (got.status == IoStatus::reset) return IoStatus::reset;
  if (got.status != IoStatus::ok) return IoStatus::would_block;  // an end is read again by the relay
  const auto header = frame_header(FrameType::data, got.bytes);
  std::copy(header.begin(), header.end(), out.worker.buffers.frame.begin());
  out.early.insert(out.early.end(), payload.begin(), payload.begin() + static_cast<std::ptrdiff_t>(got.bytes));
  const bool sent = peer.tls.write(std::span(out.worker.buffers.frame).first(frame_header_bytes + got.bytes)) && peer.tls.flush();
  return sent ? IoStatus::ok : IoStatus::end;
}

// OPEN, and the early data there is, in one piece. `reset`: the application did; `end`: the peer is gone, and nothing went out.
IoStatus send_open(Outgoing& out, PeerConnection& peer) {
  const auto open = frame_header(FrameType::open, 0);
  std::vector<std::uint8_t>& buffer = out.worker.buffers.frame;
  std::copy(open.begin(), open.end(), buffer.begin());
  std::size_t used = open.size();
  if (out.early.size() < early_data_max && out.app.watch().readable) {
    const std::span<std::uint8_t> room = std::span(out.worker.buffers.plain).first(early_data_max - out.early.size());
    const IoResult got = out.app.read(room);
    if (got.status == IoStatus::reset) return IoStatus::reset;
    out.early.insert(out.early.end(), room.begin(), room.begin() + static_cast<std::ptrdiff_t>(got.bytes));
  }
  if (!out.early.empty()) {
    const auto data = frame_header(FrameType::data, out.early.size());
    std::copy(data.begin(), data.end(), buffer.begin() + static_cast<std::ptrdiff_t>(used));
    used += data.size();
    std::copy(out.early.begin(), out.early.end(), buffer.begin() + static_cast<std::ptrdiff_t>(used));
    used += out.early.size();
  }
  return peer.tls.write(std::span(buffer).first(used)) && peer.tls.flush() ? IoStatus::ok : IoStatus::end;
}

Attempt read_status(const FramePiece& piece) {
  const auto code = static_cast<StatusCode>(piece.payload[0]);
  const std::string_view detail = name_of(static_cast<StatusDetail>(piece.payload[1]));
  Attempt attempt;
  switch (code) {
    case StatusCode::accepted: attempt.kind = Attempt::Kind::established; return attempt;
    case StatusCode::denied: return failed(Reason::peer_denied, detail);
    case StatusCode::no_policy: return failed(Reason::peer_denied, name_of(code));
    case StatusCode::app_unreachable: attempt = failed(Reason::app_unreachable, detail); break;
    case StatusCode::overloaded: attempt = failed(Reason::peer_overloaded, detail); break;
    default: return failed(Reason::protocol_error, "unknown status");
  }
  attempt.kind = Attempt::Kind::try_next;  // the inbound side says that it did not act
  return attempt;
}

// Opens the next stream on the connection and waits for its status.
Task<Attempt> open_stream(Outgoing& out, std::unique_ptr<PeerConnection> peer) {
  const bool recycled = peer->streams > 0;
  ++peer->streams;
  out.record.set_peer(*peer);
  const IoStatus opened = send_open(out, *peer);
  if (opened == IoStatus::reset) co_return failed(Reason::reset);
  if (opened != IoStatus::ok) {
    // The connection was lost before the kernel took one byte of OPEN: nobody can have acted on it.
    Attempt attempt = failed(Reason::peer_failed, "reset");
    if (recycled) attempt.kind = Attempt::Kind::try_again;
    co_return attempt;
  }
  Socket& socket = peer->tls.socket();
  bool late = false;
  Timer deadline(out.worker.loop, [&socket, &late] {
    late = true;
    socket.cancel();
  });
  deadline.arm(out.worker.config.limits.handshake_timeout + out.worker.config.limits.connect_timeout);
  out.stream.waits_on(&socket, &out.app);
  Attempt attempt;
  while (true) {
    if (out.stream.revoked()) {
      attempt = failed(out.stream.why());
      break;
    }
    if (late || socket.watch().cancelled) {
      attempt = failed(Reason::peer_failed, "no status");
      break;
    }
    if (!peer->tls.can_write() && !peer->tls.flush()) {
      attempt = failed(Reason::peer_failed, "reset");
      break;
    }
    if (peer->may_read()) {
      const IoResult got = peer->read(out.worker.buffers.plain);
      if (got.status == IoStatus::ok) {
        std::span<const std::uint8_t> bytes = std::span(out.worker.buffers.plain).first(got.bytes);
        const FramePiece piece = peer->reader.next(bytes);
        if (piece.kind == FramePiece::Kind::need_more) continue;
        if (piece.kind != FramePiece::Kind::frame || piece.type != FrameType::status) {
          attempt = failed(Reason::protocol_error, "expected status");
          break;
        }
        peer->keep(bytes);
        attempt = read_status(piece);
        break;
      }
      if (got.status == IoStatus::end) {
        // close_notify without a status: provably, nothing was acted on.
        attempt = failed(Reason::peer_failed, "closed");
        if (recycled) attempt.kind = Attempt::Kind::try_again;
        break;
      }
      if (got.status == IoStatus::reset) {
        // In TLS 1.3 a client hears only now that its certificate was refused.
        const bool refused = peer->tls.failure().kind == HandshakeFailure::Kind::refused_by_peer;
        attempt = failed(Reason::peer_failed, refused ? "identity_refused" : "reset");
        break;
      }
    }
    const IoStatus early = send_early(out, *peer);
    if (early == IoStatus::ok) continue;
    if (early != IoStatus::would_block) {
      attempt = early == IoStatus::reset ? failed(Reason::reset) : failed(Reason::peer_failed, "reset");
      break;
    }
    co_await until_ready(socket.watch(), out.app.watch());
  }
  out.stream.waits_on(nullptr);
  if (attempt.kind == Attempt::Kind::established) {
    attempt.peer = std::move(peer);
    co_return attempt;
  }
  if (attempt.reason == Reason::reset || attempt.reason == Reason::policy_changed || attempt.reason == Reason::identity_denied) {
    const std::array code{static_cast<std::uint8_t>(reset_code(attempt.reason))};
    if (peer->tls.can_write()) peer->send_control(FrameType::reset, code);
  }
  close_gracefully(out.worker, std::move(peer));
  co_return attempt;
}

// The identity that answered is decided on, before one byte of the application is sent.
Judgement judge_peer(Outgoing& out, const PeerConnection& peer) {
  out.stream.facts.identity = peer.identity;
  const Judgement judgement = judge(out.worker.snapshot.get(), out.stream.facts);
  out.record.set_peer(peer);
  out.record.set_judgement(judgement);
  return judgement;
}

// One endpoint: a recycled connection or a new one, its identity, its status.
Task<Attempt> reach_endpoint(Outgoing& out, bool framed, bool may_recycle) {
  Worker& worker = out.worker;
  std::unique_ptr<PeerConnection> peer;
  if (framed && may_recycle && worker.config.recycling.enabled && worker.tls)
    peer = worker.pool.take(out.destination.address, worker.tls->generation());
  const bool recycled = peer != nullptr;
  if (!recycled) {
    Attempt attempt = co_await connect_peer(out, framed);
    if (attempt.kind != Attempt::Kind::established) co_return attempt;
    peer = std::move(attempt.peer);
  }
  const Judgement judgement = judge_peer(out, *peer);
  if (!judgement.allowed) {
    if (judgement.reason == Reason::identity_denied) TlsContext::forget_session(peer->tls.ssl());
    if (framed) {
      close_gracefully(worker, std::move(peer));
    } else {
      peer->tls.socket().abort();  // close_notify would say that the application had nothing to send
    }
    Attempt attempt = failed(judgement.reason, judgement.detail);
    const bool other = judgement.reason == Reason::identity_mismatch || judgement.reason == Reason::identity_unknown;
    if (other) {
      attempt.reason = Reason::identity_mismatch;
      attempt.kind = Attempt::Kind::resolve_again;
    }
    co_return attempt;
  }
  if (recycled) worker.counters.streams_recycled.add();
  if (!framed) {
    Attempt attempt;
    attempt.kind = Attempt::Kind::established;
    attempt.peer = std::move(peer);
    co_return attempt;
  }
  Attempt attempt = co_await open_stream(out, std::move(peer));
  co_return attempt;
}

// Frames with a sidecar, or plain SPIFFE mTLS with a server that is marked for it.
bool speaks_tls(const Destination& destination, bool framed) {
  if (destination.workload == nullptr || destination.kind == Destination::Kind::self || destination.workload->meshed != framed)
    return false;
  const Port port = destination.address.port;
  return framed ? destination.workload->intercepts_inbound(port) : destination.workload->mtls_for(port) == MtlsMode::spiffe;
}

Task<void> serve_over_tls(Outgoing& out, bool framed, SocketAddress original) {
  Worker& worker = out.worker;
  Attempt attempt;
  bool may_recycle = true;
  bool resolved_again = false;
  for (std::uint32_t tried = 0; tried < out.destination.candidates;) {
    attempt = co_await reach_endpoint(out, framed, may_recycle);
    if (attempt.kind == Attempt::Kind::established || attempt.kind == Attempt::Kind::failed) break;
    if (attempt.kind == Attempt::Kind::try_again) {
      may_recycle = false;
      continue;
    }
    if (attempt.kind == Attempt::Kind::resolve_again && std::exchange(resolved_again, true)) break;
    if (attempt.kind == Attempt::Kind::try_next && ++tried == out.destination.candidates) break;
    const Destination next = worker.snapshot->resolve(original, out.pick, tried);
    if (!speaks_tls(next, framed)) break;
    out.destination.workload = next.workload;
    out.destination.address = next.address;
    out.record.fields.destination = next.address;
    out.stream.facts = {Direction::outbound, next.address.address, next.address.port, nullptr, true};
  }
  if (attempt.kind != Attempt::Kind::established) {
    out.app.abort();
    out.record.end(attempt.reason, attempt.detail, attempt.reason == Reason::reset ? ClosedBy::source : ClosedBy::destination);
    co_return;
  }
  const std::size_t early_bytes = out.early.size();
  out.early = {};
  out.record.opened();
  std::unique_ptr<PeerConnection> peer = std::move(attempt.peer);
  bool clean = false;
  {
    TlsRelay relay(worker.loop, worker.buffers, *peer, out.app, worker.config.limits.idle_timeout);
    out.stream.relays(&relay);
    co_await relay;
    out.stream.relays(nullptr);
    out.record.set_relay(relay, Direction::outbound);
    out.record.fields.bytes_sent += early_bytes;
    clean = relay.end().reason == Reason::finished;
  }
  const bool reusable = clean && framed && worker.config.recycling.enabled && peer->keeps_nothing() && peer->reader.at_boundary() &&
                        peer->tls.context().generation() == worker.tls->generation();
  if (reusable) {
    worker.pool.put(std::move(peer));
  } else if (clean || framed) {
    close_gracefully(worker, std::move(peer));
  }
}

Task<void> serve_in_plaintext(Outgoing& out) {
  Worker& worker = out.worker;
  out.record.fields.plaintext = true;
  if (!out.record.fields.self) {
    const Judgement judgement = judge(worker.snapshot.get(), out.stream.facts);
    out.record.set_judgement(judgement);
    if (!judgement.allowed) {
      out.app.abort();
      out.record.end(judgement.reason, judgement.detail);
      co_return;
    }
  }
  const Connected peer =
      co_await connect_socket(worker, out.destination.address, out.stream, Reason::connect_failed, Reason::connect_timeout);
  if (!peer.socket) {
    out.app.abort();
    out.record.end(peer.failed, peer.detail, ClosedBy::destination);
    co_return;
  }
  out.record.opened();
  PlainRelay relay(worker.loop, worker.buffers, worker.pipes, out.app, *peer.socket, worker.config.limits.idle_timeout);
  out.stream.relays(&relay);
  co_await relay;
  out.stream.relays(nullptr);
  out.record.set_relay(relay, Direction::outbound);
}

// Why nothing can be sent to this destination; Reason::finished: it can.
Reason refusal(const Config& config, const Destination& destination) {
  switch (destination.kind) {
    case Destination::Kind::self: return is_reserved_port(config, destination.address.port) ? Reason::reserved_port : Reason::finished;
    case Destination::Kind::unknown: return Reason::destination_unknown;
    case Destination::Kind::no_endpoint: return Reason::no_endpoint;
    case Destination::Kind::workload:
    case Destination::Kind::outside: break;
  }
  return Reason::finished;
}

}  // namespace

Task<void> serve_outbound(Worker& worker, Accepted accepted) {
  const Worker::Admission admission(worker, Direction::outbound, accepted.source);
  Record record(worker, Direction::outbound, accepted.source, accepted.at);
  const auto original = original_destination(accepted.fd);
  Socket app(worker.loop, accepted.fd, true);
  if (!original) {
    record.set_destination(local_address(app.fd()));
    record.end(Reason::no_original_destination);
    app.abort();
    co_return;
  }
  record.set_destination(*original);
  if (!worker.snapshot) {
    record.end(Reason::no_policy);
    app.abort();
    co_return;
  }
  std::shared_ptr<const PolicySnapshot> snapshot = worker.snapshot;  // what `destination` points into
  const std::uint32_t pick = ++worker.pick;
  Destination destination = snapshot->resolve(*original, pick);
  if (destination.kind == Destination::Kind::unknown && worker.lookups != nullptr) {
    co_await look_up(worker, original->address);
    snapshot = worker.snapshot;
    destination = snapshot->resolve(*original, pick);
  }
  record.fields.snapshot = snapshot;
  record.fields.source_workload = &snapshot->self();
  record.fields.destination_workload = destination.workload;
  record.fields.service = destination.service;
  record.fields.destination = destination.address;
  record.fields.self = destination.kind == Destination::Kind::self;
  if (const Reason reason = refusal(worker.config, destination); reason != Reason::finished) {
    record.end(reason);
    app.abort();
    co_return;
  }
  const bool framed = speaks_tls(destination, true);
  const bool tls = framed || speaks_tls(destination, false);
  Stream stream(worker, ConnectionFacts{Direction::outbound, destination.address.address, destination.address.port, nullptr, tls}, record,
                !record.fields.self);
  Outgoing out{worker, app, record, stream, destination, pick, {}};
  if (!tls) {
    co_await serve_in_plaintext(out);
    co_return;
  }
  // What no rule could allow ends here: nothing leaves the pod.
  const Judgement judgement = judge(snapshot.get(), stream.facts);
  record.set_judgement(judgement);
  if (!judgement.allowed) {
    record.end(judgement.reason, judgement.detail);
    app.abort();
    co_return;
  }
  co_await serve_over_tls(out, framed, *original);
}

}  // namespace postern
