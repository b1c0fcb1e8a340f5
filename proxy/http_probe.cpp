#include "proxy/http_probe.hpp"

#include <openssl/ssl.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "certs/openssl.hpp"
#include "certs/tls_socket.hpp"
#include "proxy/app_connection.hpp"
#include "proxy/http_location.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr std::size_t most_under_way = 16;
// The kubelet has its own limit and hangs up; a preStop handler may take as long as terminationGracePeriodSeconds lets it.
constexpr auto longest = std::chrono::hours{1};
constexpr std::uint32_t header_bytes = 64U << 10;
constexpr std::size_t body_bytes = 10U << 10;  // pkg/probe/http of the kubelet, maxRespBodyLength
constexpr int most_redirects = 10;             // as Go's net/http
constexpr int most_interim = 5;                // answers 1xx before the answer, as Go's net/http
constexpr std::size_t most_remembered = 64;

// Of one connection alone, or of the one that carries it (RFC 9110 section 7.6.1); a GET of ours has no body.
constexpr std::array<std::string_view, 11> not_passed_on{"host",          "connection", "keep-alive", "proxy-connection",  "te",
                                                         "trailer",       "upgrade",    "expect",     "transfer-encoding", "content-length",
                                                         "http2-settings"};

using Headers = std::vector<std::pair<std::string, std::string>>;

std::string_view header_of(const Headers& headers, std::string_view name) {
  const auto found = std::find_if(headers.begin(), headers.end(), [&](const auto& one) { return beast::iequals(one.first, name); });
  return found == headers.end() ? std::string_view() : std::string_view(found->second);
}

// Names that the Connection header lists go no further either.
bool is_passed_on(const Headers& headers, const std::string& name) {
  if (std::any_of(not_passed_on.begin(), not_passed_on.end(), [&](std::string_view one) { return beast::iequals(one, name); }))
    return false;
  return !http::token_list(header_of(headers, "Connection")).exists(name);
}

// The kubelet's own is the address and the port that it asks; the application's port is in its place then. A Host of httpHeaders stays.
std::string host_for(const HttpRequest& request, const SocketAddress& server) {
  const std::string_view sent = header_of(request.headers, "Host");
  return sent.empty() || sent == request.local.text() ? server.text() : std::string(sent);
}

// As the kubelet's: TLS 1.2 or later, nothing verified, no server name (the host of its URL is an address).
SslPtr unverified_client() {
  const SslCtxPtr context(SSL_CTX_new(TLS_client_method()));
  if (!context || SSL_CTX_set_min_proto_version(context.get(), TLS1_2_VERSION) != 1) return {};
  SSL_CTX_set_security_level(context.get(), 0);
  SSL_CTX_set_verify(context.get(), SSL_VERIFY_NONE, nullptr);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SslPtr ssl(SSL_new(context.get()));
  if (ssl) SSL_set_connect_state(ssl.get());
  return ssl;
}

struct Answer {
  unsigned status = 0;
  std::string content_type;
  std::string location;
  std::string body;
};

struct Failure {
  unsigned status = 502;
  std::string why;
};

using Outcome = std::pair<std::optional<Answer>, Failure>;

Outcome no_answer(unsigned status, std::string why) { return {std::nullopt, {status, std::move(why)}}; }

template <class Stream>
asio::awaitable<Outcome> perform(Stream& stream, const http::request<http::empty_body>& message) {
  const auto [write_error, written] = co_await http::async_write(stream, message, as_values);
  if (write_error) co_return no_answer(502, "the request cannot be sent: " + write_error.message());
  beast::flat_buffer buffer(header_bytes + body_bytes);
  for (int interim = 0; interim <= most_interim; ++interim) {
    http::response_parser<http::buffer_body> parser;
    parser.header_limit(header_bytes);
    parser.body_limit(boost::none);  // what is too long is not read
    const auto [header_error, header_size] = co_await http::async_read_header(stream, buffer, parser, as_values);
    if (header_error == http::error::end_of_stream) co_return no_answer(502, "it ended the connection without an answer");
    if (header_error) co_return no_answer(502, "its answer cannot be read: " + header_error.message());
    Answer answer;
    answer.status = parser.get().result_int();
    if (answer.status == 101) co_return no_answer(502, "it answered 101, to a request that offers no upgrade");
    if (answer.status < 200) continue;
    answer.content_type = parser.get()[http::field::content_type];
    answer.location = parser.get()[http::field::location];
    answer.body.resize(body_bytes);
    parser.get().body() = {answer.body.data(), answer.body.size(), true};
    if (!parser.is_done()) {
      const auto [body_error, body_size] = co_await http::async_read(stream, buffer, parser, as_values);
      if (body_error && body_error != http::error::need_buffer)
        co_return no_answer(502, "the body of its answer (" + std::to_string(answer.status) + ") cannot be read: " + body_error.message());
    }
    answer.body.resize(body_bytes - parser.get().body().size);
    co_return Outcome{std::move(answer), {}};
  }
  co_return no_answer(502, "it sent more than " + std::to_string(most_interim) + " interim answers (1xx)");
}

// One TCP connection, one request. `socket` is the caller's to close, which ends this.
asio::awaitable<Outcome> ask_once(std::shared_ptr<std::optional<TlsSocket>> secured, std::shared_ptr<tcp::socket> socket, HttpStep step,
                                  http::request<http::empty_body> message) {
  const tcp::endpoint server = endpoint_of(step.server);
  const auto [connect_error] = co_await socket->async_connect(server, as_values);
  if (connect_error) co_return no_answer(503, connect_error.message());
  if (is_connected_with_itself(*socket, server)) co_return no_answer(503, "Connection refused");
  if (!step.tls) co_return co_await perform(*socket, message);
  SslPtr ssl = unverified_client();
  if (!ssl) co_return no_answer(502, openssl_error("TLS").message);
  TlsSocket& tls = secured->emplace(std::move(*socket), std::move(ssl));
  if (const auto shaken = co_await tls.handshake(); !shaken) co_return no_answer(502, shaken.error().message);
  co_return co_await perform(tls, message);
}

// The connection that is under way, which a deadline or a caller that hangs up closes.
struct UnderWay {
  std::shared_ptr<tcp::socket> socket;
  std::shared_ptr<std::optional<TlsSocket>> secured;
  bool ended = false;

  void close() {
    ended = true;
    error_code ignored;
    if (socket) socket->close(ignored);
    if (secured && *secured) (*secured)->next_layer().close(ignored);
  }
};

http::request<http::empty_body> message_of(const HttpRequest& request, const HttpStep& step) {
  http::request<http::empty_body> message(http::verb::get, step.target, 11);
  message.set(http::field::host, step.host);
  for (const auto& [name, value] : request.headers) {
    if (is_passed_on(request.headers, name)) message.insert(name, value);
  }
  message.keep_alive(false);
  return message;
}

class Counted {
 public:
  explicit Counted(std::size_t& count) : count_(count) { ++count_; }
  Counted(const Counted&) = delete;
  Counted& operator=(const Counted&) = delete;
  ~Counted() { --count_; }

 private:
  std::size_t& count_;
};

bool is_redirect(unsigned status) { return status == 301 || status == 302 || status == 303 || status == 307 || status == 308; }

// Follows redirects to the same address as the kubelet does.
asio::awaitable<Outcome> ask_all(std::shared_ptr<UnderWay> under_way, HttpStep step, HttpRequest request) {
  const auto executor = co_await asio::this_coro::executor;
  for (int asked = 0; asked < most_redirects; ++asked) {
    // The sidecar is not the application.
    if (step.server.port == request.local.port) co_return no_answer(502, "it leads to the sidecar's own port");
    under_way->socket = std::make_shared<tcp::socket>(executor);
    under_way->secured = std::make_shared<std::optional<TlsSocket>>();
    http::request<http::empty_body> message = message_of(request, step);
    Outcome outcome = co_await ask_once(under_way->secured, under_way->socket, step, std::move(message));
    if (under_way->ended || !outcome.first || !is_redirect(outcome.first->status) || outcome.first->location.empty()) co_return outcome;
    auto next = follow_location(step, outcome.first->location);
    if (!next) co_return no_answer(502, next.error().message);
    if (!*next) co_return outcome;  // the kubelet takes it for a success then, with a warning
    step = **std::move(next);
  }
  co_return no_answer(502, "stopped after " + std::to_string(most_redirects) + " redirects");
}

}  // namespace

asio::awaitable<HttpAnswer> HttpProbes::ask(AppProbe probe, HttpRequest request) {
  if (under_way_ >= most_under_way) co_return failed(probe, 503, "too many probes are under way");
  const Counted counted(under_way_);
  const SocketAddress server{request.local.address, probe.port};
  HttpStep step{probe.scheme == AppProbe::Scheme::https, server, probe.target, host_for(request, server)};

  const auto under_way = std::make_shared<UnderWay>();
  const auto caller = request.caller;
  if (caller->gone) co_return HttpAnswer{0, {}, {}};
  caller->on_gone = [under_way] { under_way->close(); };
  asio::steady_timer timer(co_await asio::this_coro::executor, longest);
  timer.async_wait([under_way](const error_code& ec) {
    if (!ec) under_way->close();
  });
  Outcome outcome = co_await ask_all(under_way, std::move(step), std::move(request));
  timer.cancel();
  if (caller->gone) co_return HttpAnswer{0, {}, {}};
  if (under_way->ended) co_return failed(probe, 504, "no answer within an hour");
  if (!outcome.first) co_return failed(probe, outcome.second.status, outcome.second.why);
  note(text_of(probe), {});
  Answer& answer = *outcome.first;
  co_return HttpAnswer{answer.status, std::move(answer.content_type), std::move(answer.body)};
}

HttpAnswer HttpProbes::failed(const AppProbe& probe, unsigned status, const std::string& why) {
  note(text_of(probe), why);
  if (probe.hook) return {0, {}, {}};
  return {status, {}, "the application's port " + std::to_string(probe.port.number) + ": " + why + "\n"};
}

// The kubelet's event has only the status: the reason is here. Once for each change, or a probe that fails would fill the log.
void HttpProbes::note(const std::string& probe, const std::string& why) {
  const auto known = failures_.find(probe);
  if (why.empty()) {
    if (known != failures_.end()) failures_.erase(known);
    return;
  }
  if (known != failures_.end() && known->second == why) return;
  if (failures_.size() >= most_remembered) failures_.clear();
  failures_[probe] = why;
  log_.info("app_probe_failed", {{"probe", probe}, {"reason", why}});
}

}  // namespace postern
