#include "base/http_service.hpp"

#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstring>
#include <optional>
#include <utility>

#include "base/sockaddr.hpp"
#include "base/thread.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;
using AnyStream = asio::generic::stream_protocol;  // TCP or unix

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr auto linger = std::chrono::seconds{1};
constexpr std::size_t linger_bytes = 64U << 10;
constexpr auto accept_pause = std::chrono::milliseconds{100};

SocketAddress address_of(const AnyStream::endpoint& endpoint) {
  sockaddr_storage storage{};
  std::memcpy(&storage, endpoint.data(), std::min(endpoint.size(), sizeof(storage)));
  return from_sockaddr(storage);
}

// What a request that could not be read is answered; nothing when there is nobody left to answer.
std::optional<HttpAnswer> refusal(const error_code& ec) {
  if (ec == http::error::end_of_stream || ec == http::error::partial_message) return std::nullopt;
  if (ec == http::error::header_limit || ec == http::error::buffer_overflow) return HttpAnswer{431, {}, "request header too large\n"};
  if (ec == http::error::body_limit) return HttpAnswer{413, {}, "request body too large\n"};
  if (ec.category() == make_error_code(http::error::bad_method).category()) return HttpAnswer{400, {}, "malformed request\n"};
  return std::nullopt;
}

http::response<http::string_body> to_response(HttpAnswer answer) {
  http::response<http::string_body> response(static_cast<http::status>(answer.status), 11);
  response.set(http::field::content_type, answer.content_type.empty() ? "text/plain; charset=utf-8" : answer.content_type);
  response.set(http::field::cache_control, "no-store");
  response.keep_alive(false);
  const bool has_body = response.result() != http::status::no_content && response.result() != http::status::not_modified;
  if (has_body) response.body() = std::move(answer.body);  // RFC 9110 section 6.4.1
  response.prepare_payload();
  return response;
}

}  // namespace

struct HttpService::Session : std::enable_shared_from_this<Session> {
  explicit Session(asio::io_context& io) : stream(io) {}
  beast::basic_stream<AnyStream> stream;
  IpAddress source;
  bool being_answered = false;
};

HttpService::HttpService(std::string name, ListeningSocket socket, Handler handler, Log& log, HttpLimits limits)
    : name_(std::move(name)), handler_(std::move(handler)), log_(log), limits_(limits), acceptor_(io_) {
  const int protocol = socket.family() == AF_UNIX ? 0 : IPPROTO_TCP;
  acceptor_.assign(AnyStream(socket.family(), protocol), socket.release());
  asio::co_spawn(io_, accept_loop(), asio::detached);
  thread_ = start_without_signals(name_, [this] { io_.run(); });
}

HttpService::~HttpService() {
  io_.stop();
  thread_.join();
  sessions_.clear();  // a session's socket must not outlive io_
}

asio::awaitable<void> HttpService::accept_loop() {
  bool failing = false;
  asio::steady_timer pause(io_);
  while (true) {
    auto session = std::make_shared<Session>(io_);
    AnyStream::endpoint peer;
    const auto [ec] = co_await acceptor_.async_accept(session->stream.socket(), peer, as_values);
    if (ec) {
      // Out of descriptors, most likely: wait instead of spinning, and say it once.
      if (!failing) log_.warning("admin_accept_failed", {{"service", name_}, {"error", ec.message()}});
      failing = true;
      pause.expires_after(accept_pause);
      co_await pause.async_wait(as_values);
      continue;
    }
    failing = false;
    session->source = address_of(peer).address;
    admit(std::move(session));
  }
}

void HttpService::admit(std::shared_ptr<Session> session) {
  if (sessions_.size() >= limits_.connections) {
    auto oldest = std::find_if(sessions_.begin(), sessions_.end(), [](const auto& one) { return !one->being_answered; });
    if (oldest == sessions_.end()) oldest = sessions_.begin();
    (*oldest)->stream.close();  // its pending operation ends with an error, and it goes
    sessions_.erase(oldest);
  }
  sessions_.push_back(session);
  asio::co_spawn(io_, serve(std::move(session)), asio::detached);
}

asio::awaitable<void> HttpService::serve(std::shared_ptr<Session> session) {
  try {
    co_await converse(*session);
  } catch (const std::exception& e) {
    log_.error("admin_connection_failed", {{"service", name_}, {"error", e.what()}});
  }
  sessions_.remove(session);
  session->stream.close();  // watch() may still hold it
}

asio::awaitable<void> HttpService::converse(Session& session) {
  auto& stream = session.stream;
  stream.expires_after(limits_.deadline);
  beast::flat_buffer buffer(limits_.header_bytes + limits_.body_bytes);
  http::request_parser<http::string_body> parser;
  parser.header_limit(limits_.header_bytes);
  parser.body_limit(limits_.body_bytes);
  const auto [read_error, read_bytes] = co_await http::async_read(stream, buffer, parser, as_values);
  std::optional<HttpAnswer> answered;
  if (read_error) {
    answered = refusal(read_error);
    if (!answered) co_return;
  } else {
    HttpRequest request;
    request.method = parser.get().method_string();
    request.target = parser.get().target();
    const auto mark = std::min(request.target.find('?'), request.target.size());
    request.path = request.target.substr(0, mark);
    request.query = request.target.substr(std::min(mark + 1, request.target.size()));
    for (const auto& field : parser.get()) request.headers.emplace_back(field.name_string(), field.value());
    request.body = std::move(parser.get().body());
    request.source = session.source;
    error_code unknown;
    request.local = address_of(stream.socket().local_endpoint(unknown));
    answered = co_await answer(session, std::move(request));
    if (answered->status == 0) co_return;
    stream.expires_after(limits_.deadline);
  }
  const auto response = to_response(*std::move(answered));
  const auto [write_error, written] = co_await http::async_write(stream, response, as_values);
  if (write_error) co_return;

  // Closing with unread bytes would reset the connection and could take the answer with it.
  error_code ignored;
  stream.socket().shutdown(asio::socket_base::shutdown_send, ignored);
  stream.expires_after(linger);
  std::array<char, 1024> rest;
  for (std::size_t total = 0; total < linger_bytes;) {
    const auto [ec, n] = co_await stream.async_read_some(asio::buffer(rest), as_values);
    if (ec) break;
    total += n;
  }
}

asio::awaitable<HttpAnswer> HttpService::answer(Session& session, HttpRequest request) {
  const auto caller = request.caller = std::make_shared<HttpCaller>();
  session.being_answered = true;
  asio::co_spawn(io_, watch(session.shared_from_this(), caller), asio::detached);
  HttpAnswer answered{500, {}, "internal error\n"};
  std::string failure;
  try {
    answered = co_await handler_(std::move(request));
  } catch (const std::exception& e) {
    failure = e.what();
  }
  session.being_answered = false;
  caller->on_gone = nullptr;
  error_code ignored;
  session.stream.socket().cancel(ignored);  // ends watch()
  if (!failure.empty()) log_.error("admin_request_failed", {{"service", name_}, {"error", failure}});
  co_return answered;
}

// One request per connection: whatever arrives while it is answered is taken for the caller's end.
asio::awaitable<void> HttpService::watch(std::shared_ptr<Session> session, std::shared_ptr<HttpCaller> caller) {
  if (!session->being_answered) co_return;  // a quick handler was done before this began
  co_await session->stream.socket().async_wait(asio::socket_base::wait_read, as_values);
  if (!session->being_answered) co_return;
  caller->gone = true;
  if (caller->on_gone) caller->on_gone();
}

}  // namespace postern
