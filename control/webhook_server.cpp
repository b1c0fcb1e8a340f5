#include "control/webhook_server.hpp"

#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>
#include <boost/beast/ssl.hpp>
#include <list>
#include <mutex>
#include <thread>
#include <utility>

#include "control/admission_review.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using asio::ip::tcp;
using boost::system::error_code;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr auto kAcceptPause = std::chrono::milliseconds{100};
constexpr std::uint32_t kHeaderBytes = 16U << 10;
constexpr std::size_t kReadBytes = 64U << 10;

using Stream = beast::ssl_stream<beast::tcp_stream>;
using Request = http::request<http::string_body>;
using Response = http::response<http::string_body>;
using ContextPtr = std::shared_ptr<ssl::context>;
using SettingsPtr = std::shared_ptr<const InjectionSettings>;

struct Connection {
  Stream stream;
  bool is_busy = false;  // with a request
};

// Stands in the list of open connections while it lives.
class Registered {
 public:
  Registered(std::list<Connection*>& all, Connection& one) : all_(all), at_(all.insert(all.end(), &one)) {}
  Registered(const Registered&) = delete;
  Registered& operator=(const Registered&) = delete;
  ~Registered() { all_.erase(at_); }

 private:
  std::list<Connection*>& all_;
  std::list<Connection*>::iterator at_;
};

Response response_of(unsigned status, std::string type, std::string body, bool keep_alive) {
  Response out(static_cast<http::status>(status), 11);
  out.set(http::field::content_type, type);
  out.keep_alive(keep_alive);
  out.body() = std::move(body);
  out.prepare_payload();
  return out;
}

// Something that is no HTTP, or too much of it, rather than a connection that ended.
bool is_malformed(const error_code& failed) {
  return failed != http::error::end_of_stream && failed.category() == make_error_code(http::error::bad_method).category();
}

Result<ContextPtr> make_context(const std::string& chain_pem, const std::string& key_pem) {
  auto context = std::make_shared<ssl::context>(ssl::context::tls_server);
  SSL_CTX_set_min_proto_version(context->native_handle(), TLS1_2_VERSION);
  error_code ec;
  context->use_certificate_chain(asio::buffer(chain_pem), ec);
  if (ec) return Error{"the webhook's certificate cannot be used: " + ec.message(), {}};
  context->use_private_key(asio::buffer(key_pem), ssl::context::pem, ec);
  if (ec) return Error{"the webhook's key cannot be used: " + ec.message(), {}};
  return context;
}

}  // namespace

struct WebhookServer::Impl {
  Impl(ListeningSocket socket, Log& its_log, Limits its_limits) : log(its_log), limits(its_limits), acceptor(io) {
    acceptor.assign(socket.family() == AF_INET6 ? tcp::v6() : tcp::v4(), socket.release());
  }

  asio::awaitable<void> accept_loop();
  asio::awaitable<void> serve(tcp::socket socket, ContextPtr tls);
  asio::awaitable<void> converse(Connection& connection);
  void make_room();
  Response answer(const Request& request);
  void count(const AdmissionAnswer& answer);
  void audit(const AdmissionRequest& request, const AdmissionAnswer& answer, std::string_view webhook);

  Log& log;
  const Limits limits;
  std::list<Connection*> open;  // the oldest first; before io, whose end ends their coroutines
  asio::io_context io{1};
  tcp::acceptor acceptor;
  mutable std::mutex mutex;  // of the next two
  ContextPtr context;
  SettingsPtr settings;
  std::atomic<std::uint64_t> injected{0}, left_alone{0}, denied{0}, validated{0}, malformed{0}, handshakes_failed{0};
  std::thread thread;
};

asio::awaitable<void> WebhookServer::Impl::accept_loop() {
  asio::steady_timer pause(io);
  while (true) {
    tcp::socket socket(io);
    const auto [ec] = co_await acceptor.async_accept(socket, as_values);
    ContextPtr tls;
    {
      const std::lock_guard lock(mutex);
      tls = context;
    }
    if (ec) {
      pause.expires_after(kAcceptPause);
      co_await pause.async_wait(as_values);
      continue;
    }
    if (tls == nullptr) continue;  // closed: there is no certificate yet, and readiness says so
    make_room();
    asio::co_spawn(io, serve(std::move(socket), std::move(tls)), asio::detached);
  }
}

asio::awaitable<void> WebhookServer::Impl::serve(tcp::socket socket, ContextPtr tls) {
  try {
    Connection connection{Stream(beast::tcp_stream(std::move(socket)), *tls)};
    const Registered registered(open, connection);
    beast::get_lowest_layer(connection.stream).expires_after(limits.handshake);
    const auto [ec] = co_await connection.stream.async_handshake(ssl::stream_base::server, as_values);
    if (ec) {
      ++handshakes_failed;
    } else {
      co_await converse(connection);
    }
  } catch (const std::exception& e) {
    log.error("webhook_connection_failed", {{"error", e.what()}});
  }
}

// One connection too many closes the oldest that is not in the middle of a request: nobody keeps API servers out by holding connections.
void WebhookServer::Impl::make_room() {
  if (open.size() < limits.connections) return;
  const auto idle = std::find_if(open.begin(), open.end(), [](const Connection* one) { return !one->is_busy; });
  beast::get_lowest_layer((idle == open.end() ? open.front() : *idle)->stream).close();
}

asio::awaitable<void> WebhookServer::Impl::converse(Connection& connection) {
  Stream& stream = connection.stream;
  beast::flat_buffer buffer(kHeaderBytes + kReadBytes);  // the body grows apart from it, as it comes
  auto& lowest = beast::get_lowest_layer(stream);
  while (true) {
    http::request_parser<http::string_body> parser;
    parser.header_limit(kHeaderBytes);
    parser.body_limit(admission_review_bytes);
    lowest.expires_after(limits.idle);
    const auto [head_error, head_bytes] = co_await http::async_read_header(stream, buffer, parser, as_values);
    connection.is_busy = true;
    lowest.expires_after(limits.request);
    error_code failed = head_error;
    if (!failed) {
      const auto [body_error, body_bytes] = co_await http::async_read(stream, buffer, parser, as_values);
      failed = body_error;
    }
    if (failed && !is_malformed(failed)) co_return;
    if (failed) ++malformed;
    const Response response = failed
                                  ? response_of(failed == http::error::body_limit ? 413 : 400, "text/plain", failed.message() + "\n", false)
                                  : answer(parser.get());
    const auto [write_error, written] = co_await http::async_write(stream, response, as_values);
    if (write_error || !response.keep_alive()) break;
    connection.is_busy = false;
  }
  const auto [ignored] = co_await stream.async_shutdown(as_values);
  (void)ignored;
}

Response WebhookServer::Impl::answer(const Request& request) {
  const std::string target(request.target().substr(0, request.target().find('?')));
  const bool keep_alive = request.keep_alive();
  const bool is_injection = target == "/inject";
  if (!is_injection && target != "/validate")
    return response_of(404, "text/plain", "expected POST /inject or POST /validate\n", keep_alive);
  if (request.method() != http::verb::post) return response_of(405, "text/plain", "expected POST\n", keep_alive);
  SettingsPtr current;
  {
    const std::lock_guard lock(mutex);
    current = settings;
  }
  if (current == nullptr) return response_of(503, "text/plain", "not ready: no trust roots to put into pods yet\n", keep_alive);
  const auto review = decode_admission_review(request.body());
  if (!review) {
    ++malformed;
    log.warning("admission_review_unreadable", {{"error", review.error().text()}});
    return response_of(400, "text/plain", review.error().text() + "\n", keep_alive);
  }
  const AdmissionAnswer verdict = is_injection ? answer_mutation(*review, *current) : answer_validation(*review, *current);
  count(verdict);
  audit(*review, verdict, is_injection ? "inject" : "validate");
  return response_of(200, "application/json", encode_admission_response(review->uid, verdict), keep_alive);
}

void WebhookServer::Impl::count(const AdmissionAnswer& answer) {
  if (!answer.allowed) {
    ++denied;
  } else if (answer.outcome == "injected") {
    ++injected;
  } else if (answer.outcome == "left_alone") {
    ++left_alone;
  } else {
    ++validated;
  }
}

void WebhookServer::Impl::audit(const AdmissionRequest& request, const AdmissionAnswer& answer, std::string_view webhook) {
  std::string why = answer.message;
  for (const auto& [key, value] : answer.audit) {
    if (key != "denied") why += (why.empty() ? "" : "; ") + key + ": " + value;
  }
  log.info("admission", {{"webhook", webhook},
                         {"outcome", answer.outcome},
                         {"namespace", request.ns},
                         {"name", request.name},
                         {"user", request.user},
                         {"dry_run", request.dry_run ? "true" : "false"},
                         {"why", why}});
}

WebhookServer::WebhookServer(ListeningSocket socket, Log& log, Limits limits)
    : impl_(std::make_unique<Impl>(std::move(socket), log, limits)) {
  asio::co_spawn(impl_->io, impl_->accept_loop(), asio::detached);
  sigset_t all{};
  sigset_t before{};
  sigfillset(&all);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) sigdelset(&all, fault);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // process-directed signals are the main thread's
  impl_->thread = std::thread([impl = impl_.get()] { impl->io.run(); });
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  pthread_setname_np(impl_->thread.native_handle(), "webhook");
}

WebhookServer::~WebhookServer() {
  impl_->io.stop();
  impl_->thread.join();
}

Result<void> WebhookServer::use_certificate(const std::string& chain_pem, const std::string& key_pem) {
  auto context = make_context(chain_pem, key_pem);
  if (!context) return context.error();
  const std::lock_guard lock(impl_->mutex);
  impl_->context = std::move(*context);
  return {};
}

void WebhookServer::use_settings(InjectionSettings settings) {
  auto next = std::make_shared<const InjectionSettings>(std::move(settings));
  const std::lock_guard lock(impl_->mutex);
  impl_->settings = std::move(next);
}

bool WebhookServer::ready() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->context != nullptr && impl_->settings != nullptr;
}

WebhookServer::Stats WebhookServer::stats() const {
  return {impl_->injected, impl_->left_alone, impl_->denied, impl_->validated, impl_->malformed, impl_->handshakes_failed};
}

}  // namespace postern
