// Inbound: connections that arrive for this pod, from accept to close.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/client_hello.hpp"
#include "proxy/connection.hpp"
#include "proxy/lookup.hpp"
#include "proxy/original_destination.hpp"

namespace postern {

namespace {

constexpr std::size_t peek_max = 16U << 10;

// TLS or plaintext, from a source that we know nothing of: its first bytes tell, and stay in the socket.
// At the deadline it is plaintext: a protocol in which the server speaks first.
Task<Expectation> peek_protocol(Worker& worker, Socket& socket) {
  bool late = false;
  Timer deadline(worker.loop, [&socket, &late, &worker] {
    late = true;
    if (socket.watch().waiter != nullptr) worker.loop.make_ready(*socket.watch().waiter);
  });
  deadline.arm(worker.config.limits.peek_timeout);
  Expectation answer = Expectation::plaintext;
  while (!late) {
    const std::span<std::uint8_t> buffer = std::span(worker.buffers.plain).first(peek_max);
    const IoResult peeked = socket.peek(buffer);
    if (peeked.status == IoStatus::end || peeked.status == IoStatus::reset) break;
    if (peeked.status == IoStatus::ok) {
      const ClientHelloResult hello = parse_client_hello(buffer.first(peeked.bytes));
      if (hello.kind == ClientHelloResult::Kind::not_tls) break;
      if (hello.kind == ClientHelloResult::Kind::tls) {
        answer = Expectation::tls;
        break;
      }
      if (socket.watch().hung_up) break;
      const int enough = static_cast<int>(hello.needed);
      setsockopt(socket.fd(), SOL_SOCKET, SO_RCVLOWAT, &enough, sizeof enough);
    }
    socket.watch().readable = false;
    co_await until_ready(socket.watch());
    if (socket.watch().cancelled) break;
  }
  const int any = 1;
  setsockopt(socket.fd(), SOL_SOCKET, SO_RCVLOWAT, &any, sizeof any);
  co_return answer;
}

// Plaintext, decided at once: nothing has been read, so protocols in which the server speaks first are not held up.
Task<void> serve_plaintext(Worker& worker, Accepted accepted, SocketAddress original) {
  const SocketAddress source = accepted.source;
  Record record(worker, Direction::inbound, source, accepted.at);
  record.set_destination(original);
  record.fields.plaintext = true;
  Socket client(worker.loop, accepted.fd, true);
  Stream stream(worker, ConnectionFacts{Direction::inbound, source.address, original.port, nullptr}, record);
  const Judgement judgement = judge(worker.snapshot.get(), stream.facts);
  record.set_judgement(judgement);
  if (!judgement.allowed) {
    client.abort();
    record.end(judgement.reason, judgement.detail);
    co_return;
  }
  // Only now does the application learn that somebody called.
  const Connected app = co_await connect_socket(worker, original, stream, Reason::app_unreachable, Reason::app_timeout);
  if (!app.socket) {
    client.abort();
    record.end(app.failed, app.detail, ClosedBy::destination);
    co_return;
  }
  record.opened();
  PlainRelay relay(worker.loop, worker.buffers, worker.pipes, client, *app.socket, worker.config.limits.idle_timeout,
                   worker.config.limits.peek_timeout);
  stream.relays(&relay);
  co_await relay;
  stream.relays(nullptr);
  record.set_relay(relay, Direction::outbound);  // the relay's "app" is the client here: the source
}

StatusDetail status_detail(const Judgement& judgement) {
  if (judgement.reason == Reason::denied) return StatusDetail::no_rule;
  if (judgement.reason == Reason::identity_denied) return StatusDetail::identity_denied;
  if (judgement.reason == Reason::trust_domain_not_allowed) return StatusDetail::identity_unknown;
  if (judgement.reason != Reason::identity_unknown) return StatusDetail::none;
  return judgement.detail == name_of(IdentityError::uid_mismatch) ? StatusDetail::uid_mismatch : StatusDetail::identity_unknown;
}

bool send_status(PeerConnection& peer, StatusCode code, StatusDetail detail = StatusDetail::none) {
  const std::array payload{static_cast<std::uint8_t>(code), static_cast<std::uint8_t>(detail)};
  return peer.send_control(FrameType::status, payload);
}

bool refuse(Worker& worker, PeerConnection& peer, Record& record, const Judgement& judgement) {
  if (judgement.reason == Reason::identity_denied) TlsContext::forget_session(peer.tls.ssl());
  if (peer.framed) send_status(peer, worker.snapshot ? StatusCode::denied : StatusCode::no_policy, status_detail(judgement));
  record.end(judgement.reason, judgement.detail);
  return false;
}

// The bundle that a handshake was verified with may have been withdrawn since.
Judgement judge_stream(const Worker& worker, const ConnectionFacts& facts) {
  if (worker.trusts(*facts.identity)) return judge(worker.snapshot.get(), facts);
  Judgement withdrawn;
  withdrawn.reason = Reason::identity_rejected;
  withdrawn.detail = name_of(CertificateError::unknown_trust_domain);
  return withdrawn;
}

// One application connection on an mTLS connection. True: it ended cleanly, and the next one may follow.
Task<bool> serve_stream(Worker& worker, PeerConnection& peer, SocketAddress original, std::chrono::steady_clock::time_point began) {
  Record record(worker, Direction::inbound, peer.remote, began);
  record.set_destination(original);
  record.set_peer(peer);
  // No suspension between these two: a policy change sees the connection, or the connection sees the policy.
  Stream stream(worker, ConnectionFacts{Direction::inbound, peer.remote.address, original.port, peer.identity}, record);
  const Judgement judgement = judge_stream(worker, stream.facts);
  record.set_judgement(judgement);
  if (!judgement.allowed) co_return refuse(worker, peer, record, judgement);

  // Only now does the application learn that somebody called.
  const Connected app = co_await connect_socket(worker, original, stream, Reason::app_unreachable, Reason::app_timeout);
  if (!app.socket) {
    const StatusDetail detail = app.failed == Reason::app_timeout             ? StatusDetail::timeout
                                : app.failed == Reason::identity_denied       ? StatusDetail::identity_denied
                                : app.failed == Reason::descriptors_exhausted ? StatusDetail::descriptors
                                                                              : StatusDetail::none;
    const StatusCode code = app.failed == Reason::policy_changed          ? StatusCode::denied
                            : app.failed == Reason::identity_denied       ? StatusCode::denied
                            : app.failed == Reason::descriptors_exhausted ? StatusCode::overloaded
                                                                          : StatusCode::app_unreachable;
    if (peer.framed) send_status(peer, code, detail);
    record.end(app.failed, app.detail, ClosedBy::destination);
    co_return false;
  }
  if (peer.framed && !send_status(peer, StatusCode::accepted)) {
    app.socket->abort();
    record.end(Reason::reset, {}, ClosedBy::source);
    co_return false;
  }
  record.opened();
  TlsRelay relay(worker.loop, worker.buffers, peer, *app.socket, worker.config.limits.idle_timeout);
  stream.relays(&relay);
  co_await relay;
  stream.relays(nullptr);
  record.set_relay(relay, Direction::inbound);
  co_return relay.end().reason == Reason::finished;
}

// What waiting for the next stream ends with.
enum class Next : std::uint8_t { open, closed, late, malformed };

class Waiting final : public IdleInbound {
 public:
  Waiting(Worker& worker, PeerConnection& peer, Port port) : peer_(peer) {
    facts = {Direction::inbound, peer.remote.address, port, peer.identity};
    worker.idle_inbound.push_back(*this);
  }
  void close() override { peer_.tls.socket().cancel(); }

 private:
  PeerConnection& peer_;
};

Task<Next> next_stream(Worker& worker, PeerConnection& peer, std::chrono::milliseconds patience) {
  Socket& socket = peer.tls.socket();
  bool late = false;
  Timer deadline(worker.loop, [&socket, &late] {
    late = true;
    socket.cancel();
  });
  deadline.arm(patience);
  while (true) {
    // Also where an OPEN has come meanwhile: nothing of it is acted on, and close_notify without STATUS says so.
    if (socket.watch().cancelled) co_return late ? Next::late : Next::closed;
    if (!peer.tls.can_write() && !peer.tls.flush()) co_return Next::closed;
    const IoResult got = peer.read(worker.buffers.plain);
    if (got.status == IoStatus::ok) {
      std::span<const std::uint8_t> bytes = std::span(worker.buffers.plain).first(got.bytes);
      const FramePiece piece = peer.reader.next(bytes);
      if (piece.kind == FramePiece::Kind::need_more) continue;
      if (piece.kind != FramePiece::Kind::frame || piece.type != FrameType::open) co_return Next::malformed;
      peer.keep(bytes);  // early data
      co_return Next::open;
    }
    if (got.status != IoStatus::would_block || socket.watch().failed) co_return Next::closed;
    co_await until_ready(socket.watch());
  }
}

// Nobody goes on proving with an expired SVID who they are: the outbound side may keep its end for as long as it likes.
bool proof_holds(const PeerConnection& peer) {
  const auto now = std::chrono::system_clock::now();
  return peer.identity->not_after > now && peer.tls.context().usable(now);
}

// The streams of one mTLS connection between sidecars, one after another.
Task<void> serve_streams(Worker& worker, std::unique_ptr<PeerConnection> peer, SocketAddress original,
                         std::chrono::steady_clock::time_point accepted) {
  bool more = true;
  while (more) {
    const bool first = peer->streams == 0;
    Next next = Next::closed;
    {
      std::optional<Waiting> waiting;  // the first stream is under way already, and is decided when it is here
      if (!first) waiting.emplace(worker, *peer, original.port);
      next = co_await next_stream(worker, *peer, first ? worker.config.limits.handshake_timeout : worker.config.recycling.inbound_idle);
    }
    if (next != Next::open) {
      if (first || next == Next::malformed) {
        Record record(worker, Direction::inbound, peer->remote, first ? accepted : std::chrono::steady_clock::now());
        record.set_destination(original);
        record.set_peer(*peer);
        if (next == Next::malformed) record.end(Reason::protocol_error, "expected open");
        if (next == Next::late) record.end(Reason::handshake_timeout, "no stream opened");
        if (next == Next::closed) record.end(Reason::truncated, "no stream opened", ClosedBy::source);
      }
      break;
    }
    if (!first && !proof_holds(*peer)) break;  // close_notify without STATUS: nothing was acted on
    ++peer->streams;
    more = co_await serve_stream(worker, *peer, original, first ? accepted : std::chrono::steady_clock::now()) &&
           worker.config.recycling.enabled && peer->tls.context().generation() == worker.tls->generation();
  }
  close_gracefully(worker, std::move(peer));
}

Task<void> serve_tls(Worker& worker, Accepted accepted, SocketAddress original) {
  const auto refused = [&](Reason reason, std::string_view detail, const PeerConnection* peer) {
    Record record(worker, Direction::inbound, accepted.source, accepted.at);
    record.set_destination(original);
    if (peer != nullptr && peer->identity) record.set_peer(*peer);
    record.end(reason, detail);
  };
  if (!worker.tls || !worker.tls->usable(std::chrono::system_clock::now())) {
    close(accepted.fd);
    refused(Reason::svid_missing, {}, nullptr);
    co_return;
  }
  const bool plain_spiffe = worker.snapshot && worker.snapshot->self().mtls_for(original.port) == MtlsMode::spiffe;
  auto peer = std::make_unique<PeerConnection>(worker.loop, worker.buffers.gather, accepted.fd, true, worker.tls,
                                               worker.tls->new_server(plain_spiffe), accepted.source);
  const HandshakeOutcome outcome = co_await run_handshake(worker, *peer, Direction::inbound);
  if (outcome.reason != Reason::finished) {
    refused(outcome.reason, outcome.detail, nullptr);
    close_gracefully(worker, std::move(peer));  // the alert must arrive
    co_return;
  }
  if (peer->framed) {
    co_await serve_streams(worker, std::move(peer), original, accepted.at);
    co_return;
  }
  peer->streams = 1;
  // Without a status, a close_notify means that all is well: a refusal or a reset must not look like one. Nor is a FIN alone enough: Go's
  // TLS takes it for an end. OpenSSL sends no alert of our choice after the handshake, so it is TCP's reset.
  const bool clean = co_await serve_stream(worker, *peer, original, accepted.at);
  if (clean) {
    close_gracefully(worker, std::move(peer));
  } else {
    peer->tls.socket().abort();
  }
}

void refuse_at_once(Worker& worker, const Accepted& accepted, const SocketAddress& destination, Reason reason) {
  Record record(worker, Direction::inbound, accepted.source, accepted.at);
  record.set_destination(destination);
  record.end(reason);
  const linger no_linger{1, 0};
  setsockopt(accepted.fd, SOL_SOCKET, SO_LINGER, &no_linger, sizeof no_linger);
  close(accepted.fd);
}

}  // namespace

Task<void> serve_inbound(Worker& worker, Accepted accepted) {
  const Worker::Admission admission(worker, Direction::inbound, accepted.source);
  const auto original = original_destination(accepted.fd);
  if (!original) {
    refuse_at_once(worker, accepted, local_address(accepted.fd), Reason::no_original_destination);
    co_return;
  }
  if (is_reserved_port(worker.config, original->port)) {
    refuse_at_once(worker, accepted, *original, Reason::reserved_port);
    co_return;
  }
  if (!worker.snapshot) {
    refuse_at_once(worker, accepted, *original, Reason::no_policy);
    co_return;
  }
  if (worker.lookups != nullptr && is_unknown_source(*worker.snapshot, accepted.source.address)) {
    Socket socket(worker.loop, accepted.fd, true);
    co_await look_up(worker, accepted.source.address);
    accepted.fd = socket.release();
  }
  Expectation expected = expect_inbound(*worker.snapshot, accepted.source.address, original->port);
  if (expected == Expectation::peek) {
    Socket socket(worker.loop, accepted.fd, true);
    expected = co_await peek_protocol(worker, socket);
    accepted.fd = socket.release();
  }
  if (expected == Expectation::tls) {
    co_await serve_tls(worker, accepted, *original);
  } else {
    co_await serve_plaintext(worker, accepted, *original);
  }
}

}  // namespace postern
