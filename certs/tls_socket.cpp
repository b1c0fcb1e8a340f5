#include "certs/tls_socket.hpp"

#include <openssl/err.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>

#include "certs/tls_context.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
using boost::system::error_code;

}  // namespace

TlsSocket::TlsSocket(asio::ip::tcp::socket socket, SslPtr ssl) : socket_(std::move(socket)), ssl_(std::move(ssl)) {
  error_code ignored;  // a socket that is broken already says so at the handshake
  socket_.native_non_blocking(true, ignored);
  socket_.set_option(asio::ip::tcp::no_delay(true), ignored);
  SSL_set_fd(ssl_.get(), socket_.native_handle());
}

asio::awaitable<Result<void>> TlsSocket::handshake() {
  constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
  while (true) {
    ERR_clear_error();
    errno = 0;
    const int returned = SSL_do_handshake(ssl_.get());
    if (returned == 1) co_return Result<void>();
    const int system_error = errno;
    const int kind = SSL_get_error(ssl_.get(), returned);
    if (kind == SSL_ERROR_WANT_READ || kind == SSL_ERROR_WANT_WRITE) {
      const Wait wait = kind == SSL_ERROR_WANT_READ ? Wait::wait_read : Wait::wait_write;
      const auto [error] = co_await socket_.async_wait(wait, as_values);
      if (error) co_return Error{"TLS handshake: " + error.message(), {}};
      continue;
    }
    if (kind == SSL_ERROR_SYSCALL) {
      const error_code error(system_error, boost::system::system_category());
      co_return Error{"TLS handshake: " + (system_error == 0 ? std::string("the peer closed the connection") : error.message()), {}};
    }
    const HandshakeFailure failure = TlsContext::handshake_failure(ssl_.get());
    co_return Error{failure.detail, {}};
  }
}

TlsSocket::Attempt TlsSocket::attempt(asio::mutable_buffer buffer) {
  if (!socket_.is_open()) return {asio::error::bad_descriptor, 0, std::nullopt};
  ERR_clear_error();
  errno = 0;
  std::size_t bytes = 0;
  const int returned = SSL_read_ex(ssl_.get(), buffer.data(), buffer.size(), &bytes);
  return outcome(returned, bytes);
}

TlsSocket::Attempt TlsSocket::attempt(asio::const_buffer buffer) {
  if (!socket_.is_open()) return {asio::error::bad_descriptor, 0, std::nullopt};
  ERR_clear_error();
  errno = 0;
  std::size_t bytes = 0;
  const int returned = SSL_write_ex(ssl_.get(), buffer.data(), buffer.size(), &bytes);
  return outcome(returned, bytes);
}

TlsSocket::Attempt TlsSocket::outcome(int returned, std::size_t bytes) {
  if (returned == 1) return {{}, bytes, std::nullopt};
  const int system_error = errno;
  const auto truncated = asio::ssl::error::make_error_code(asio::ssl::error::stream_truncated);
  switch (SSL_get_error(ssl_.get(), returned)) {
    case SSL_ERROR_WANT_READ: return {{}, 0, Wait::wait_read};
    case SSL_ERROR_WANT_WRITE: return {{}, 0, Wait::wait_write};
    case SSL_ERROR_ZERO_RETURN: return {asio::error::eof, 0, std::nullopt};
    case SSL_ERROR_SYSCALL:
      return {system_error == 0 ? truncated : error_code(system_error, boost::system::system_category()), 0, std::nullopt};
  }
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING) return {truncated, 0, std::nullopt};
  return {error_code(static_cast<int>(code), asio::error::get_ssl_category()), 0, std::nullopt};
}

void TlsSocket::close() {
  if (!socket_.is_open()) return;
  ERR_clear_error();
  if (SSL_is_init_finished(ssl_.get()) == 1) SSL_shutdown(ssl_.get());  // does not wait: the socket is non-blocking
  ERR_clear_error();
  error_code ignored;
  socket_.shutdown(asio::socket_base::shutdown_both, ignored);
  socket_.close(ignored);
}

void teardown(boost::beast::role_type, TlsSocket& socket, error_code& error) {
  error = {};
  socket.close();
}

}  // namespace postern
