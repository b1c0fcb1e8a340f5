#include "proxy/connection.hpp"

#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

namespace postern {

Record::Record(Worker& worker, Direction direction, const SocketAddress& source, std::chrono::steady_clock::time_point began)
    : worker_(worker), began_(began) {
  fields.direction = direction;
  const auto ago = std::chrono::duration_cast<std::chrono::system_clock::duration>(std::chrono::steady_clock::now() - began);
  fields.started = std::chrono::system_clock::now() - ago;
  fields.source = source;
  const auto d = static_cast<std::size_t>(direction);
  worker_.counters.connections_opened[d].add();
  worker_.counters.connections_active[d].add();
}

Record::~Record() {
  const auto d = static_cast<std::size_t>(fields.direction);
  WorkerCounters& counters = worker_.counters;
  counters.connections_active[d].subtract();
  if (discarded_) {
    counters.connections_opened[d].subtract();
    return;
  }
  fields.duration = std::chrono::steady_clock::now() - began_;
  const auto verdict = static_cast<std::size_t>(verdict_label(fields));
  counters.connections_closed[d][verdict][static_cast<std::size_t>(fields.reason)].add();
  const bool inbound = fields.direction == Direction::inbound;
  counters.bytes_sent[d].add(inbound ? fields.bytes_received : fields.bytes_sent);
  counters.bytes_received[d].add(inbound ? fields.bytes_sent : fields.bytes_received);
  worker_.access_log.submit(worker_.index, std::move(fields));
}

void Record::set_destination(const SocketAddress& original) { fields.destination = fields.original_destination = original; }

void Record::set_peer(const PeerConnection& peer) {
  fields.peer_identity = peer.identity;
  fields.own_identity = worker_.identity;
  fields.tls_established = true;
  fields.tls_version = peer.facts.version;
  fields.tls_cipher = peer.facts.cipher;
  fields.tls_group = peer.facts.group;
  fields.tls_resumed = peer.facts.resumed;
  fields.connection_id = peer.connection_id;
  fields.stream = peer.framed ? peer.streams : 0;
}

void Record::set_judgement(const Judgement& judgement) {
  fields.snapshot = worker_.snapshot;
  fields.decided = judgement.decided;
  fields.verdict = judgement.verdict;
  fields.identity_by_address = judgement.identity_by_address;
  const Workload* self = worker_.snapshot ? &worker_.snapshot->self() : nullptr;
  const bool inbound = fields.direction == Direction::inbound;
  fields.source_workload = inbound ? judgement.peer : self;
  fields.destination_workload = inbound ? self : judgement.peer;
}

void Record::set_relay(const Relay& relay, Direction app_is) {
  // bytes_sent goes from source to destination; on the outbound side the application is the source.
  const bool app_is_source = app_is == Direction::outbound;
  fields.bytes_sent = app_is_source ? relay.from_app_bytes() : relay.to_app_bytes();
  fields.bytes_received = app_is_source ? relay.to_app_bytes() : relay.from_app_bytes();
  const RelayEnd& ended = relay.end();
  const bool by_source = ended.by_app == app_is_source;
  end(ended.reason, ended.detail, ended.by_proxy ? ClosedBy::proxy : by_source ? ClosedBy::source : ClosedBy::destination);
}

void Record::end(Reason reason, std::string_view detail, ClosedBy by) {
  fields.reason = reason;
  fields.detail = detail;
  fields.closed_by = by;
}

void Record::opened() {
  if (!worker_.config.access_log.at_open) return;
  AccessRecord opening = fields;
  opening.at_open = true;
  worker_.access_log.submit(worker_.index, std::move(opening));
}

Stream::Stream(Worker& worker, ConnectionFacts facts, const Record& record, bool decided)
    : LiveConnection(std::move(facts)), record_(record), decided_(decided) {
  worker.live.add(*this);
}

void Stream::revoke(Reason reason) {
  if (revoked_) return;
  revoked_ = true;
  why_ = reason;
  if (relay_ != nullptr) return relay_->stop(reason);
  for (Socket* socket : sockets_) {
    if (socket != nullptr) socket->cancel();
  }
}

std::string Stream::describe() const {
  AccessRecord now = record_.fields;
  now.at_open = true;
  if (relay_ != nullptr) {
    const bool app_is_source = now.direction == Direction::outbound;
    now.bytes_sent = app_is_source ? relay_->from_app_bytes() : relay_->to_app_bytes();
    now.bytes_received = app_is_source ? relay_->to_app_bytes() : relay_->from_app_bytes();
  }
  now.duration = std::chrono::system_clock::now() - now.started;
  return format_record(now);
}

Task<Connected> connect_socket(Worker& worker, SocketAddress to, Stream& stream, Reason refused, Reason late) {
  const auto began = std::chrono::steady_clock::now();
  Connected result;
  bool connected = false;
  // Towards the application of this pod nothing is redirected.
  SourcePortTurn* ports = stream.facts.direction == Direction::outbound ? worker.source_ports.get() : nullptr;
  const int fd = open_client_socket(to, worker.config, ports, worker.loop.now(), connected);
  if (fd < 0) {
    const bool exhausted = errno == EMFILE || errno == ENFILE;
    result.failed = exhausted ? Reason::descriptors_exhausted : refused;
    if (!exhausted) result.detail = strerrordesc_np(errno);
    co_return result;
  }
  result.socket = std::make_unique<Socket>(worker.loop, fd, connected);
  Socket& socket = *result.socket;
  if (!connected) {
    bool timed_out = false;
    Timer deadline(worker.loop, [&socket, &timed_out] {
      timed_out = true;
      socket.cancel();
    });
    deadline.arm(worker.config.limits.connect_timeout);
    stream.waits_on(&socket);
    while (!socket.watch().writable && !socket.watch().cancelled) co_await until_ready(socket.watch());
    stream.waits_on(nullptr);
    int error = 0;
    socklen_t length = sizeof error;
    getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length);
    if (stream.revoked()) {
      result.failed = stream.why();
    } else if (timed_out) {
      result.failed = late;
    } else if (error != 0 || socket.watch().cancelled) {
      result.failed = refused;
      result.detail = strerrordesc_np(error);
    }
    if (result.failed != Reason::finished) {
      result.socket.reset();
      co_return result;
    }
    socket.watch().readable = true;
  }
  const auto took = std::chrono::steady_clock::now() - began;
  worker.counters.connect_duration.observe_us(
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
  co_return result;
}

namespace {

HandshakeOutcome explain_failure(const HandshakeFailure& failure) {
  switch (failure.kind) {
    case HandshakeFailure::Kind::certificate_required: return {Reason::certificate_required, {}};
    case HandshakeFailure::Kind::identity_rejected: return {Reason::identity_rejected, name_of(failure.certificate)};
    case HandshakeFailure::Kind::alpn_mismatch: return {Reason::alpn_mismatch, {}};
    case HandshakeFailure::Kind::refused_by_peer: return {Reason::handshake_failed, "refused_by_peer"};
    case HandshakeFailure::Kind::protocol: break;
  }
  return {Reason::handshake_failed, "tls_protocol"};
}

}  // namespace

Task<HandshakeOutcome> run_handshake(Worker& worker, PeerConnection& peer, Direction direction) {
  const auto d = static_cast<std::size_t>(direction);
  const auto began = std::chrono::steady_clock::now();
  bool timed_out = false;
  Timer deadline(worker.loop, [&peer, &timed_out] {
    timed_out = true;
    peer.tls.socket().cancel();
  });
  deadline.arm(worker.config.limits.handshake_timeout);
  ++worker.handshakes;
  worker.counters.handshakes_active[d].set(worker.handshakes);
  const HandshakeEnd ended = co_await peer.tls.handshake(direction == Direction::inbound);
  --worker.handshakes;
  worker.counters.handshakes_active[d].set(worker.handshakes);

  HandshakeOutcome outcome;
  switch (ended) {
    case HandshakeEnd::done: break;
    case HandshakeEnd::cancelled: outcome.reason = timed_out ? Reason::handshake_timeout : Reason::policy_changed; break;
    case HandshakeEnd::peer_closed: outcome = {Reason::handshake_failed, "peer_closed"}; break;
    case HandshakeEnd::failed: outcome = explain_failure(peer.tls.failure()); break;
  }
  if (outcome.reason != Reason::finished) {
    worker.counters.handshakes_failed[d][static_cast<std::size_t>(outcome.reason)].add();
    co_return outcome;
  }
  peer.adopt_handshake();
  (peer.facts.resumed ? worker.counters.handshakes_resumed : worker.counters.handshakes_full)[d].add();
  const auto took = std::chrono::steady_clock::now() - began;
  worker.counters.handshake_duration[d].observe_us(
      static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
  if (!peer.identity) outcome = {Reason::identity_rejected, "no_identity"};
  co_return outcome;
}

namespace {

Task<void> linger(Worker& worker, std::unique_ptr<PeerConnection> peer) {
  worker.task_started();
  ++worker.lingering;
  Socket& socket = peer->tls.socket();
  socket.watch().cancelled = false;  // whatever it was cancelled for, this is its end
  std::optional<Timer> deadline;
  deadline.emplace(worker.loop, [&socket] { socket.cancel(); });
  deadline->arm(std::chrono::seconds(1));
  peer->tls.send_close_notify();
  socket.shutdown_send();
  // What the peer still sends is thrown away unread: closing with bytes in the socket would send RST, and that may overtake what we said.
  std::array<std::uint8_t, 4096> discarded;
  while (!socket.watch().cancelled) {
    const IoResult got = socket.read(discarded);
    if (got.status == IoStatus::ok) continue;
    if (got.status != IoStatus::would_block) break;
    co_await until_ready(socket.watch());
  }
  // A peer whose application does not read has RESET waiting behind bytes that nobody takes: TCP's own reset does not wait.
  if (socket.watch().cancelled && peer->aborted) socket.abort();
  deadline.reset();  // it names the socket
  --worker.lingering;
  peer.reset();
  worker.task_ended();
}

}  // namespace

void close_gracefully(Worker& worker, std::unique_ptr<PeerConnection> peer) {
  constexpr std::uint32_t lingering_max = 4096;
  if (worker.lingering >= lingering_max || !peer->tls.can_write()) return;  // nothing more would arrive in time
  start(worker, linger(worker, std::move(peer)));
}

void start(Worker& worker, Task<void> task) {
  spawn(std::move(task), [&worker](std::exception_ptr exception) { worker.report_exception(exception); });
}

bool is_reserved_port(const Config& config, Port port) {
  return port == config.listen.inbound || port == config.listen.outbound || port == config.listen.health;
}

}  // namespace postern
