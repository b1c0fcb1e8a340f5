#include "proxy/control_stream.hpp"

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <deque>

#include "authz/stream_messages.hpp"
#include "certs/tls_socket.hpp"
#include "proxy/socket_deadline.hpp"

namespace postern {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using boost::system::error_code;
using tcp = asio::ip::tcp;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
// Replicas share their ticket keys (docs/stream.md): the session made with one is offered to all.
const SocketAddress any_replica{};
constexpr std::size_t unsent_max = 4096;  // messages; an other end that takes none of so many is not alive

class WebSocketStream final : public ControlStream, public std::enable_shared_from_this<WebSocketStream> {
 public:
  WebSocketStream(TlsSocket socket, const Timeouts& timeouts) : socket_(std::move(socket)) {
    websocket::stream_base::timeout times{};
    times.handshake_timeout = timeouts.handshake;
    times.idle_timeout = timeouts.idle;
    times.keep_alive_pings = true;
    socket_.set_option(times);
    socket_.read_message_max(control_message_bytes);
    socket_.text(true);
    socket_.control_callback([this](websocket::frame_type, beast::string_view) {
      if (on_pong_) on_pong_();
    });
  }

  asio::awaitable<Result<void>> upgrade() {
    const std::string host = "postern-control";
    const std::string path(stream_path);
    const auto [ec] = co_await socket_.async_handshake(host, path, as_values);
    // A ticket brings back the certificate that it was made with, which may have been denied since.
    if (ec) TlsContext::forget_session(socket_.next_layer().ssl());
    if (ec) co_return Error{"the WebSocket was refused: " + ec.message() + "; is this port that of postern-control's stream?", ""};
    co_return Result<void>();
  }

  bool resumed() const override { return TlsContext::facts(socket_.next_layer().ssl()).resumed; }

  asio::awaitable<Result<std::string>> read() override {
    beast::flat_buffer buffer;  // one for each message: a big one is not kept
    const auto [ec, bytes] = co_await socket_.async_read(buffer, as_values);
    if (ec == websocket::error::closed) {
      const auto& why = socket_.reason();
      co_return Error{"the control plane closed the stream: " + std::string(why.reason.data(), why.reason.size()) + " (" +
                          std::to_string(why.code) + ")",
                      ""};
    }
    if (ec) co_return Error{"the stream ended: " + ec.message(), ""};
    if (!socket_.got_text()) co_return Error{"the control plane sent a binary message; expected text", ""};
    co_return beast::buffers_to_string(buffer.data());
  }

  void send(std::string message) override {
    if (unsent_.size() >= unsent_max) return close();
    unsent_.push_back(std::move(message));
    if (unsent_.size() == 1) write_next();
  }

  void on_pong(std::function<void()> call) override { on_pong_ = std::move(call); }

  void close() override {
    error_code ignored;
    beast::get_lowest_layer(socket_).close(ignored);
  }

  void finish() override {
    finishing_ = true;
    if (unsent_.empty()) close();
  }

 private:
  void write_next() {
    socket_.async_write(asio::buffer(unsent_.front()), [self = shared_from_this()](const error_code& ec, std::size_t) {
      if (ec) return self->close();  // read() says so
      self->unsent_.pop_front();
      if (!self->unsent_.empty()) return self->write_next();
      if (self->finishing_) self->close();
    });
  }

  websocket::stream<TlsSocket> socket_;
  std::deque<std::string> unsent_;
  bool finishing_ = false;
  std::function<void()> on_pong_;
};

}  // namespace

asio::awaitable<Result<std::shared_ptr<ControlStream>>> ControlStream::connect(tcp::endpoint to, std::shared_ptr<const TlsContext> tls,
                                                                               SpiffeId control, Timeouts timeouts) {
  const asio::any_io_executor executor = co_await asio::this_coro::executor;
  tcp::socket socket(executor);
  {
    const SocketDeadline deadline(executor, timeouts.connect, socket);
    const auto [ec] = co_await socket.async_connect(to, as_values);
    if (deadline.passed() || ec == asio::error::timed_out) co_return Error{std::string(connection_timed_out), ""};
    if (ec) co_return Error{ec.message(), ""};
  }
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);

  SslPtr ssl = tls->new_client(any_replica, true);
  if (!ssl) co_return Error{"out of memory", ""};
  TlsSocket secured(std::move(socket), std::move(ssl));
  {
    const SocketDeadline deadline(executor, timeouts.handshake, secured.next_layer());
    auto shaken = co_await secured.handshake();
    if (deadline.passed()) co_return Error{"the TLS handshake took too long", ""};
    if (!shaken) co_return shaken.error();
  }
  // Another workload's SVID is as valid as ours: only this one name is the control plane.
  const auto peer = TlsContext::peer_identity(secured.ssl());
  if (!peer || !(peer->id == control)) {
    co_return Error{
        "it proved to be " + (peer ? peer->id.text() : std::string("nobody")) + ", not " + control.text() + "; not one byte was sent to it",
        ""};
  }
  const auto stream = std::make_shared<WebSocketStream>(std::move(secured), timeouts);
  auto upgraded = co_await stream->upgrade();
  if (!upgraded) co_return upgraded.error();
  co_return std::shared_ptr<ControlStream>(stream);
}

}  // namespace postern
