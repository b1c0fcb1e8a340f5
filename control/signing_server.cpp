#include "control/signing_server.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <optional>
#include <utility>

#include "certs/csr.hpp"
#include "certs/tls_socket.hpp"
#include "control/token_review.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr auto accept_pause = std::chrono::milliseconds(100);
constexpr auto deadline = std::chrono::seconds(15);  // from accept to the answer's last byte
constexpr std::uint32_t header_bytes = 8U << 10;
// Callers share an address where something translates it; one alone still cannot use up what is for all.
constexpr double source_per_second = 20;
constexpr double source_burst = 100;
constexpr double lines_per_second = 10;

http::response<http::string_body> to_response(HttpAnswer answer) {
  http::response<http::string_body> response(static_cast<http::status>(answer.status), 11);
  response.set(http::field::content_type, "application/json");
  response.set(http::field::cache_control, "no-store");
  response.keep_alive(false);
  response.body() = std::move(answer.body);
  response.prepare_payload();
  return response;
}

}  // namespace

struct SigningServer::Connection {
  Connection(tcp::socket accepted, SslPtr ssl) : socket(std::move(accepted), std::move(ssl)), timer(socket.get_executor()) {}
  TlsSocket socket;
  asio::steady_timer timer;
  std::string source;
};

SigningServer::SigningServer(asio::io_context& io, const ControlConfig& config, KubeClient& client, const AuthorityStore& authority,
                             BundleAcks& acks, Log& log)
    : io_(io),
      config_(config),
      client_(client),
      authority_(authority),
      acks_(acks),
      log_(log),
      acceptor_(io),
      room_(io),
      by_source_(source_per_second, source_burst),
      overall_(config.authority.requests_per_second, 2.0 * config.authority.requests_per_second),
      by_pod_(config.authority.pod_requests_per_minute / 60.0, config.authority.pod_requests_per_minute),
      log_lines_(lines_per_second, lines_per_second) {}

SigningServer::~SigningServer() = default;

Result<void> SigningServer::use_identity(const X509ContextPtr& identity) {
  TlsSettings settings;
  settings.alpn = signing_alpn;
  settings.resumption = false;
  auto made = TlsContext::make(identity, settings, nullptr, ++tls_generation_);
  if (!made) return made.error();
  tls_ = std::make_unique<TlsContext>(*std::move(made));
  return {};
}

void SigningServer::start(ListeningSocket socket) {
  acceptor_.assign(socket.family() == AF_INET6 ? tcp::v6() : tcp::v4(), socket.release());
  asio::co_spawn(io_, accept_loop(), asio::detached);
}

void SigningServer::close() {
  closing_ = true;
  error_code ignored;
  acceptor_.close(ignored);
  room_.cancel();
  for (const auto& [at, connection] : connections_) connection->socket.close();
}

asio::awaitable<void> SigningServer::accept_loop() {
  bool failing = false;
  while (!closing_) {
    if (connections_.size() >= config_.limits.handshakes) {
      room_.expires_at(asio::steady_timer::time_point::max());
      co_await room_.async_wait(as_values);
      continue;
    }
    tcp::socket accepted(io_);
    tcp::endpoint peer;
    const auto [error] = co_await acceptor_.async_accept(accepted, peer, as_values);
    if (closing_) co_return;
    if (error) {
      // Out of descriptors, most likely: wait instead of spinning, and say it once.
      if (!failing) log_.warning("signing_accept_failed", {{"error", error.message()}});
      failing = true;
      room_.expires_after(accept_pause);
      co_await room_.async_wait(as_values);
      continue;
    }
    failing = false;
    SslPtr ssl = tls_ ? tls_->new_server_for_anybody() : nullptr;
    if (!ssl) {
      ++stats_.refused["no_svid"];
      continue;
    }
    auto connection = std::make_shared<Connection>(std::move(accepted), std::move(ssl));
    connection->source = peer.address().to_string();
    connections_.emplace(connection.get(), connection);
    connection->timer.expires_after(deadline);
    connection->timer.async_wait([weak = std::weak_ptr(connection)](const error_code& ec) {
      if (const auto late = weak.lock(); late && !ec) late->socket.close();
    });
    asio::co_spawn(io_, serve(std::move(connection)), asio::detached);
  }
}

asio::awaitable<void> SigningServer::serve(std::shared_ptr<Connection> connection) {
  auto shaken = co_await connection->socket.handshake();
  if (!shaken) {
    ++stats_.refused["handshake_failed"];
    if (log_lines_.take("", RateLimit::Clock::now()))
      log_.info("signing_handshake_failed", {{"address", connection->source}, {"error", shaken.error().text()}});
  } else {
    beast::flat_buffer buffer(header_bytes + signing_request_bytes);
    http::request_parser<http::string_body> parser;
    parser.header_limit(header_bytes);
    parser.body_limit(signing_request_bytes);
    const auto [read_error, read_bytes] = co_await http::async_read(connection->socket, buffer, parser, as_values);
    HttpAnswer answered;
    if (read_error) {
      answered = refuse(400, "malformed", "the request cannot be read: " + read_error.message(), connection->source);
    } else {
      std::string method = parser.get().method_string();
      std::string path = parser.get().target();
      answered = co_await answer(std::move(method), std::move(path), std::move(parser.get().body()), connection->source);
    }
    const auto response = to_response(std::move(answered));
    co_await http::async_write(connection->socket, response, as_values);
  }
  connection->timer.cancel();
  connection->socket.close();
  connections_.erase(connection.get());
  room_.cancel();
}

HttpAnswer SigningServer::refuse(unsigned status, std::string_view reason, const std::string& message, const std::string& who) {
  ++stats_.refused[reason];
  if (log_lines_.take("", RateLimit::Clock::now())) log_.warning("svid_refused", {{"from", who}, {"reason", reason}, {"detail", message}});
  return {status, {}, encode_signing_error(message)};
}

asio::awaitable<HttpAnswer> SigningServer::answer(std::string method, std::string path, std::string body, std::string source) {
  if (path != signing_path) co_return refuse(404, "malformed", "expected POST " + std::string(signing_path), source);
  if (method != "POST") co_return refuse(405, "malformed", "expected POST " + std::string(signing_path), source);
  const auto now = RateLimit::Clock::now();
  if (!by_source_.take(source, now)) co_return refuse(429, "too_many", "too many requests from this address; try again later", source);
  if (!overall_.take("", now)) co_return refuse(429, "too_many", "too many requests in all; try again later", source);
  auto request = decode_signing_request(body);
  if (!request) co_return refuse(400, "malformed", request.error().text(), source);
  auto key = parse_csr(request->csr);
  if (!key) co_return refuse(400, "csr_refused", key.error().text(), source);
  co_return co_await sign(*std::move(request), *std::move(key), std::move(source));
}

asio::awaitable<HttpAnswer> SigningServer::sign(SigningRequest request, KeyPtr key, std::string source) {
  const TokenVerdict verdict = co_await review_token(client_, std::move(request.token));
  if (const auto* refused = std::get_if<TokenRefusal>(&verdict))
    co_return refuse(refused->retry ? 503 : 403, refused->reason, refused->message, source);
  const TokenPod& pod = std::get<TokenPod>(verdict);
  const std::string name = pod.ns + "/" + pod.name;
  if (!by_pod_.take(pod.uid, RateLimit::Clock::now()))
    co_return refuse(429, "too_many_for_pod", "too many SVIDs for the pod " + name + "; try again later", name);
  // Only what the API server says of the pod: whatever the CSR asks to be called counts for nothing.
  const auto id = spiffe_id_of(pod, config_.mesh.trust_domain);
  if (!id) co_return refuse(500, "internal", id.error().text(), name);
  const auto authority = authority_.authority();
  if (authority == nullptr || authority_.bundle() == nullptr)
    co_return refuse(503, "unavailable", "the authority cannot be read: " + authority_.error(), name);
  const SystemTime now = std::chrono::system_clock::now();
  const auto svid = authority->sign_svid(key.get(), *id, config_.authority.svid_ttl, now);
  if (!svid) co_return refuse(503, "unavailable", svid.error().text(), name);
  acks_.saw({pod.ns, pod.name}, pod.uid, request.bundle_sequence, now);
  ++stats_.issued;
  // The audit record: one for each SVID there is.
  log_.info("svid_issued", {{"pod", name},
                            {"spiffe_id", id->text()},
                            {"serial", svid->serial},
                            {"expires", utc_text(svid->not_after)},
                            {"authority", authority->serial()},
                            {"address", source}});
  co_return HttpAnswer{200, {}, encode(SigningAnswer{svid->chain_pem, *authority_.bundle()})};
}

}  // namespace postern
