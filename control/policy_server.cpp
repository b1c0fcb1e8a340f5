#include "control/policy_server.hpp"

#include <malloc.h>
#include <poll.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/websocket.hpp>
#include <boost/json.hpp>
#include <optional>
#include <utility>

#include "authz/stream_messages.hpp"
#include "certs/tls_socket.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using boost::system::error_code;
using Clock = PolicyStream::Clock;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr auto sweep_interval = std::chrono::milliseconds{250};
constexpr auto accept_pause = std::chrono::milliseconds{100};
constexpr unsigned failure_lines_per_second = 10;
constexpr std::uint64_t trim_after = 100;  // connections
constexpr std::size_t upgrade_bytes = 8U << 10;
constexpr std::size_t read_buffer_bytes = 18U << 10;  // one record: messages of sidecars are short

websocket::close_reason close_reason_of(const PolicyStream::End& end) {
  websocket::close_code code = websocket::close_code::policy_error;
  switch (end.kind) {
    case PolicyStream::End::Kind::malformed: code = websocket::close_code::protocol_error; break;
    case PolicyStream::End::Kind::refused: code = websocket::close_code::policy_error; break;
    case PolicyStream::End::Kind::gone: code = websocket::close_code::policy_error; break;
    case PolicyStream::End::Kind::try_later: code = websocket::close_code::try_again_later; break;
  }
  // RFC 6455 section 5.5: a control frame holds 125 bytes, two of them the code.
  websocket::close_reason reason(code);
  const std::string_view text = std::string_view(end.reason).substr(0, 120);
  bool ascii = true;
  for (const char c : text) ascii = ascii && c >= ' ' && c <= '~';
  const std::string_view shown = ascii ? text : std::string_view("see the log");
  reason.reason.assign(shown.data(), shown.size());
  return reason;
}

// Whether the other end has closed already: nobody does that who wants a stream.
bool gave_up(tcp::socket& socket) {
  pollfd asked{socket.native_handle(), POLLRDHUP, 0};
  return ::poll(&asked, 1, 0) == 1 && (asked.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0;
}

std::string_view name_of(PolicyStream::End::Kind kind) {
  switch (kind) {
    case PolicyStream::End::Kind::malformed: return "malformed";
    case PolicyStream::End::Kind::refused: return "refused";
    case PolicyStream::End::Kind::gone: return "pod_gone";
    case PolicyStream::End::Kind::try_later: return "unknown_pod";
  }
  return "";
}

}  // namespace

struct PolicyServer::Session {
  Session(tcp::socket accepted, Clock::time_point now) : socket(std::move(accepted)), since(now), wake(socket.get_executor()) {}

  void close_hard() {
    error_code ignored;
    if (ws) {
      ws->next_layer().next_layer().close(ignored);
    } else {
      socket.close(ignored);
    }
    wake.cancel();
  }

  tcp::socket socket;  // until TLS takes it
  std::optional<websocket::stream<TlsSocket>> ws;
  std::optional<PolicyStream> stream;
  std::string peer;
  std::string id;      // SPIFFE ID, once proven
  std::string serial;  // of its SVID
  Clock::time_point since;
  bool admitted = false;    // said hello
  bool registered = false;  // in by_owner_, or was
  std::optional<Clock::time_point> writing_since;
  asio::steady_timer wake;      // the writer waits on it
  std::string_view end_reason;  // for the metric; set by whoever ends it
  std::string end_detail;
  bool closing = false;  // the writer is to say goodbye
  bool reader_done = false;
  bool writer_done = false;
  websocket::close_reason goodbye;
};

PolicyServer::PolicyServer(asio::io_context& io, const ControlConfig& config, ClusterStore& store, Publisher& publisher, Log& log,
                           std::function<void()> flush, std::function<void()> acknowledged, std::function<void(const Mark&)> behind)
    : io_(io),
      config_(config),
      log_(log),
      acknowledged_(std::move(acknowledged)),
      context_{store,
               publisher,
               {config.limits.lookups_per_second, config.limits.lookup_burst},
               std::move(flush),
               [this]() -> const Mark& { return mark_; },
               {},
               nullptr,
               std::move(behind)},
      acceptor_(io),
      room_(io),
      sweep_(io) {}

PolicyServer::~PolicyServer() {
  // Coroutines that are still suspended keep their sessions until `io_` goes; the publisher may be gone by then.
  for (const auto& [key, session] : sessions_) session->stream.reset();
}

Result<void> PolicyServer::use_identity(const X509ContextPtr& identity) {
  const X509ContextPtr before = std::exchange(identity_, identity);
  auto made = renew_tls();
  if (!made) identity_ = before;
  return made;
}

Result<void> PolicyServer::use_ticket_keys(TicketKeys keys) {
  ticket_keys_ = std::make_shared<const TicketKeys>(std::move(keys));
  return identity_ == nullptr ? Result<void>() : renew_tls();
}

Result<void> PolicyServer::renew_tls() {
  TlsSettings settings;
  settings.alpn = control_alpn;
  settings.read_buffer_bytes = read_buffer_bytes;
  settings.ticket_keys = ticket_keys_;
  settings.tcp_end_is_enough = true;  // a WebSocket has a closing handshake of its own
  auto made = TlsContext::make(identity_, settings, nullptr, ++tls_generation_);
  if (!made) return made.error();
  tls_ = std::make_unique<TlsContext>(*std::move(made));
  return {};
}

void PolicyServer::use_trust_bundle(const ResourcePtr& bundle) {
  context_.trust_bundle = bundle;
  for (const auto& [key, session] : sessions_) {
    if (session->stream) session->stream->trust_bundle_changed();
  }
}

void PolicyServer::use_federated_bundles(std::map<std::string, ResourcePtr, std::less<>> bundles) {
  context_.federated_bundles = std::move(bundles);
  for (const auto& [key, session] : sessions_) {
    if (session->stream) session->stream->trust_bundle_changed();
  }
}

void PolicyServer::for_each_stream(const std::function<void(const PolicyStream&)>& visit) const {
  for (const auto& [owner, session] : by_owner_) visit(*session->stream);
}

void PolicyServer::start(ListeningSocket socket) {
  acceptor_.assign(socket.family() == AF_INET6 ? tcp::v6() : tcp::v4(), socket.release());
  asio::co_spawn(io_, accept_loop(), asio::detached);
  asio::co_spawn(io_, sweep_loop(), asio::detached);
}

asio::awaitable<void> PolicyServer::accept_loop() {
  bool failing = false;
  while (!closing_) {
    if (handshaking_ >= config_.limits.handshakes) {
      room_.expires_at(Clock::time_point::max());
      co_await room_.async_wait(as_values);
      continue;
    }
    tcp::socket accepted(io_);
    tcp::endpoint peer;
    const auto [error] = co_await acceptor_.async_accept(accepted, peer, as_values);
    if (closing_) co_return;
    if (error) {
      // Out of descriptors, most likely: wait instead of spinning, and say it once.
      if (!failing) log_.warning("stream_accept_failed", {{"error", error.message()}});
      failing = true;
      room_.expires_after(accept_pause);
      co_await room_.async_wait(as_values);
      continue;
    }
    failing = false;
    ++stats_.accepted;
    // In a storm some wait here longer than their patience. A handshake with who is gone would cost as much as any, and make those wait
    // longer that are still there, until all of them are gone in turn.
    if (gave_up(accepted)) {
      ++stats_.ended["gave_up"];
      continue;
    }
    if (!tls_ || sessions_.size() >= config_.limits.streams) {
      ++stats_.ended[tls_ ? "too_many" : "no_svid"];
      continue;
    }
    auto session = std::make_shared<Session>(std::move(accepted), Clock::now());
    session->peer = peer.address().to_string() + " port " + std::to_string(peer.port());
    sessions_.emplace(session.get(), session);
    ++handshaking_;
    asio::co_spawn(io_, serve(std::move(session)), asio::detached);
  }
}

// Deadlines of all sessions, by one timer.
asio::awaitable<void> PolicyServer::sweep_loop() {
  Clock::time_point proceeded = Clock::now();
  while (true) {
    sweep_.expires_after(sweep_interval);
    const auto [error] = co_await sweep_.async_wait(as_values);
    if (error) co_return;
    const auto now = Clock::now();
    // Most of what streams wait for comes with a flush; this is for their patience.
    if (now - proceeded >= std::chrono::seconds{1}) {
      proceeded = now;
      context_.flush();
      proceed_all(now);
    }
    give_back_memory();
    for (const auto& [key, session] : sessions_) {
      if (!session->admitted && !session->closing && now - session->since > config_.limits.handshake_timeout) {
        fail(*session, "handshake_timeout", "no hello within the deadline");
        session->close_hard();
      } else if (session->writing_since && now - *session->writing_since > config_.limits.write_timeout) {
        fail(*session, "write_timeout", "the sidecar does not read");
        session->close_hard();
      }
    }
  }
}

// Many handshakes at a time leave holes that the allocator keeps: given back to the system once it is quiet again.
void PolicyServer::give_back_memory() {
  if (stats_.accepted - trimmed_at_ < trim_after || handshaking_ > 0) return;
  trimmed_at_ = stats_.accepted;
  ::malloc_trim(0);
}

void PolicyServer::fail(Session& session, std::string_view reason, std::string detail) {
  if (!session.end_reason.empty()) return;
  session.end_reason = reason;
  session.end_detail = std::move(detail);
}

asio::awaitable<void> PolicyServer::serve(SessionPtr session) {
  auto ssl = tls_->new_server(false);
  Result<void> done = Error{"out of memory", {}};
  if (ssl) done = co_await upgrade(*session, std::move(ssl));
  if (!done) {
    fail(*session, "handshake_failed", done.error().text());
    session->close_hard();
    --handshaking_;
    room_.cancel();
    remove(session, session->end_reason, session->end_detail);
    co_return;
  }
  asio::co_spawn(io_, write_messages(session), asio::detached);
  asio::co_spawn(io_, read_messages(session), asio::detached);
}

asio::awaitable<Result<void>> PolicyServer::upgrade(Session& session, SslPtr ssl) {
  const SSL* const tls = ssl.get();
  session.ws.emplace(TlsSocket(std::move(session.socket), std::move(ssl)));
  auto& ws = *session.ws;
  auto shaken = co_await ws.next_layer().handshake();
  if (!shaken) co_return shaken.error();
  const auto peer = TlsContext::peer_identity(tls);
  session.id = peer->id.text();
  session.serial = peer->serial;
  if (TlsContext::facts(tls).resumed) ++stats_.tls_resumed;
  auto owner = stream_owner(peer->id, config_.mesh.trust_domain);
  if (!owner) {
    fail(session, "refused", owner.error().text());
    co_return owner.error();
  }
  if (const DeniedBy by = denied(session); by != DeniedBy::nothing) {
    TlsContext::forget_session(tls);
    co_return Error{"the mesh's deny-list names its " + std::string(name_of(by)), session.id};
  }

  beast::flat_buffer buffer(upgrade_bytes);
  http::request_parser<http::empty_body> parser;
  parser.header_limit(upgrade_bytes);
  const auto [read_error, read_bytes] = co_await http::async_read(ws.next_layer(), buffer, parser, as_values);
  if (read_error) co_return Error{"upgrade: " + read_error.message(), {}};
  if (!websocket::is_upgrade(parser.get()) || parser.get().target() != stream_path) {
    co_return Error{"expected a WebSocket upgrade of " + std::string(stream_path), {}};
  }
  websocket::stream_base::timeout timeouts{};
  timeouts.handshake_timeout = config_.limits.handshake_timeout;
  timeouts.idle_timeout = config_.limits.idle_timeout;
  timeouts.keep_alive_pings = true;
  ws.set_option(timeouts);
  ws.auto_fragment(false);
  ws.text(true);
  ws.read_message_max(std::min<std::size_t>(sidecar_message_bytes, std::size_t{config_.limits.message_kilobytes} << 10));
  const auto [accept_error] = co_await ws.async_accept(parser.get(), as_values);
  if (accept_error) co_return Error{"upgrade: " + accept_error.message(), {}};
  session.stream.emplace(
      *std::move(owner), context_, [&session] { session.wake.cancel(); }, Clock::now());
  co_return Result<void>();
}

// The sidecar has said hello.
void PolicyServer::admit(Session& session) {
  session.admitted = true;
  --handshaking_;
  room_.cancel();
  const Mark& presented = *session.stream->presented();
  const std::string epoch = context_.store.mark().epoch;
  const bool other = context_.store.synced() && !presented.epoch.empty() && presented.epoch != epoch;
  if (other) log_.warning("stream_epoch_changed", {{"peer", session.id}, {"sidecar_epoch", presented.epoch}, {"epoch", epoch}});
  log_.info("stream_opened", {{"peer", session.id}, {"address", session.peer}, {"version", session.stream->version()}});
}

// A second stream of the same workload replaces the first: the sidecar knows best which one it uses. Only now, when it is clear that the
// SVID is that of the pod there is: yesterday's pod of the same name takes nobody's place.
void PolicyServer::take_over(Session& session) {
  session.registered = true;
  Session*& current = by_owner_[session.stream->owner().key];
  if (current != nullptr) {
    fail(*current, "replaced", "a newer stream of the same workload");
    current->goodbye = websocket::close_reason(websocket::close_code::policy_error, "replaced by a newer stream");
    current->closing = true;
    current->wake.cancel();
  }
  current = &session;
}

asio::awaitable<void> PolicyServer::read_messages(SessionPtr session) {
  auto& ws = *session->ws;
  auto& stream = *session->stream;
  while (!stream.ended() && !session->closing) {
    // Made anew for each message: an idle stream holds no buffer.
    beast::flat_buffer buffer;
    const auto [error, n] = co_await ws.async_read(buffer, as_values);
    if (error) {
      const bool by_peer = error == websocket::error::closed || error == asio::error::eof;
      const bool too_big = error == websocket::error::message_too_big;
      fail(*session, by_peer ? "closed" : too_big ? "too_big" : error == beast::error::timeout ? "idle" : "broken", error.message());
      break;
    }
    stats_.bytes_received += buffer.size();
    if (!ws.got_text()) {
      fail(*session, "malformed", "a binary message");
      session->goodbye = websocket::close_reason(websocket::close_code::unknown_data, "expected text");
      session->closing = true;
      break;
    }
    const std::string_view text(static_cast<const char*>(buffer.data().data()), buffer.size());
    stream.receive(text, Clock::now());
    if (!session->admitted && stream.presented()) admit(*session);
    if (!session->registered && stream.serving()) take_over(*session);
    acknowledged_();
  }
  session->reader_done = true;
  session->wake.cancel();
  if (session->writer_done) co_await finish(session);
}

asio::awaitable<void> PolicyServer::write_messages(SessionPtr session) {
  auto& ws = *session->ws;
  auto& stream = *session->stream;
  while (!session->reader_done && !session->closing && !stream.ended()) {
    const std::optional<std::string> message = stream.next_message();
    if (!message) {
      session->wake.expires_at(Clock::time_point::max());
      co_await session->wake.async_wait(as_values);
      continue;
    }
    session->writing_since = Clock::now();
    const auto [error, n] = co_await ws.async_write(asio::buffer(*message), as_values);
    session->writing_since.reset();
    if (error) {
      fail(*session, "broken", error.message());
      session->close_hard();
      break;
    }
    stats_.bytes_sent += n;
  }
  if (stream.ended()) {
    session->goodbye = close_reason_of(*stream.ended());
    session->closing = true;
    fail(*session, name_of(stream.ended()->kind), stream.ended()->reason);
  }
  if (session->closing && ws.is_open()) {
    session->writing_since = Clock::now();
    co_await ws.async_close(session->goodbye, as_values);
    session->writing_since.reset();
  }
  session->writer_done = true;
  if (session->reader_done) co_await finish(session);
}

// Both coroutines have ended.
asio::awaitable<void> PolicyServer::finish(SessionPtr session) {
  session->close_hard();
  if (!session->admitted) {
    --handshaking_;
    room_.cancel();
  }
  const auto owner = by_owner_.find(session->stream->owner().key);
  if (owner != by_owner_.end() && owner->second == session.get()) by_owner_.erase(owner);
  remove(session, session->end_reason, session->end_detail);
  acknowledged_();
  co_return;
}

void PolicyServer::remove(const SessionPtr& session, std::string_view reason, const std::string& detail) {
  ++stats_.ended[reason];
  sessions_.erase(session.get());
  if (!session->admitted) {
    const auto now = Clock::now();
    if (now - failures_since_ >= std::chrono::seconds{1}) {
      failures_since_ = now;
      failures_logged_ = 0;
    }
    if (++failures_logged_ > failure_lines_per_second) return;
  }
  const LogLevel level = reason == "closed" || reason == "going_away" || reason == "pod_gone" ? LogLevel::info : LogLevel::warning;
  log_.write(level, "stream_closed", {{"peer", session->id}, {"address", session->peer}, {"reason", reason}, {"detail", detail}});
}

void PolicyServer::flushed(Mark mark) {
  mark_ = std::move(mark);
  for (const auto& [key, session] : sessions_) {
    if (session->stream && !session->closing && denied(*session) != DeniedBy::nothing) end_denied(*session);
  }
  proceed_all(Clock::now());
}

DeniedBy PolicyServer::denied(const Session& session) const {
  return context_.store.mesh().settings.denied.match(session.id, session.serial);
}

void PolicyServer::end_denied(Session& session) {
  fail(session, "denied", "the mesh's deny-list names its " + std::string(name_of(denied(session))));
  session.goodbye = websocket::close_reason(websocket::close_code::policy_error, "this identity is denied");
  session.closing = true;
  session.wake.cancel();
}

void PolicyServer::proceed_all(Clock::time_point now) {
  for (const auto& [key, session] : sessions_) {
    if (!session->stream || session->registered) continue;
    session->stream->proceed(now);
    if (session->stream->serving()) take_over(*session);
  }
}

void PolicyServer::close() {
  closing_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  room_.cancel();
  for (const auto& [key, session] : sessions_) {
    fail(*session, "going_away", "");
    if (session->stream) {
      session->goodbye = websocket::close_reason(websocket::close_code::going_away, "postern-control is ending");
      session->closing = true;
      session->wake.cancel();
    } else {
      session->close_hard();
    }
  }
}

const PolicyStream* PolicyServer::stream_of(const WorkloadKey& key) const {
  const auto found = by_owner_.find(key);
  return found == by_owner_.end() ? nullptr : &*found->second->stream;
}

PolicyServer::Stats PolicyServer::stats() const {
  Stats out = stats_;
  out.streams = context_.counters;
  out.handshaking = handshaking_;
  for (const auto& [key, session] : sessions_) {
    if (!session->admitted || !session->stream) continue;
    ++out.open;
    if (session->stream->serving()) ++out.serving;
    if (session->stream->outstanding()) ++out.outstanding;
    if (!session->stream->refusal().empty()) ++out.refused;
  }
  return out;
}

std::string PolicyServer::streams_json() const {
  namespace json = boost::json;
  json::array all;
  const auto seconds_since = [now = Clock::now()](Clock::time_point then) {
    return std::chrono::duration_cast<std::chrono::seconds>(now - then).count();
  };
  for (const auto& [at, session] : sessions_) {
    if (!session->admitted || !session->stream) continue;
    const PolicyStream& stream = *session->stream;
    const WorkloadKey& key = stream.owner().key;
    all.push_back(json::object{{"namespace", key.ns},
                               {"pod", key.name},
                               {"spiffe_id", session->id},
                               {"address", session->peer},
                               {"version", stream.version()},
                               {"open_seconds", seconds_since(session->since)},
                               {"updates", stream.nonce()},
                               {"outstanding", stream.outstanding()},
                               {"resources", stream.acknowledged().size()},
                               {"behind_seconds", stream.behind_since() ? seconds_since(*stream.behind_since()) : 0},
                               {"waiting_for", stream.waiting_for()},
                               {"refusal", stream.refusal()}});
  }
  return json::serialize(json::object{{"version", POSTERN_VERSION}, {"streams", std::move(all)}});
}

}  // namespace postern
