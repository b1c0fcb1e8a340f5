// TlsSocket: TLS over an Asio TCP socket for the control plane's stream: an AsyncStream for Beast. OpenSSL reads and writes the descriptor
// itself, so that an idle stream holds no buffer (asio::ssl::stream keeps 68 KiB for each). For what is not the data path.
#pragma once

#include <openssl/ssl.h>

#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/post.hpp>
#include <boost/beast/core/role.hpp>
#include <boost/beast/websocket/teardown.hpp>
#include <boost/system/error_code.hpp>
#include <cstddef>
#include <optional>
#include <string>
#include <utility>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

// One thread at a time; one read and one write may be under way together. REQUIRES: SIGPIPE is ignored in this process (OpenSSL writes
// with write(2)).
class TlsSocket {
 public:
  using executor_type = boost::asio::ip::tcp::socket::executor_type;
  using lowest_layer_type = boost::asio::ip::tcp::socket::lowest_layer_type;
  using next_layer_type = boost::asio::ip::tcp::socket;

  // `ssl` is a TlsContext's: it knows its role (accept or connect state) and its modes. Makes the socket non-blocking, without Nagle's
  // delay.
  TlsSocket(boost::asio::ip::tcp::socket socket, SslPtr ssl);
  TlsSocket(TlsSocket&&) = default;
  ~TlsSocket() = default;

  // Handshake; the error says what OpenSSL said. Close or cancel the socket to end it early.
  boost::asio::awaitable<Result<void>> handshake();

  // AsyncReadStream and AsyncWriteStream. The end of TLS (close_notify) is asio::error::eof; a TCP end without it,
  // ssl::error::stream_truncated. One record at most for each.
  template <typename MutableBufferSequence, typename CompletionToken>
  auto async_read_some(const MutableBufferSequence& buffers, CompletionToken&& token) {
    return boost::asio::async_compose<CompletionToken, Signature>(Operation<boost::asio::mutable_buffer>(*this, first_of(buffers)), token,
                                                                  socket_);
  }
  template <typename ConstBufferSequence, typename CompletionToken>
  auto async_write_some(const ConstBufferSequence& buffers, CompletionToken&& token) {
    const boost::asio::const_buffer first = first_of<boost::asio::const_buffer>(buffers);
    return boost::asio::async_compose<CompletionToken, Signature>(Operation<boost::asio::const_buffer>(*this, first), token, socket_);
  }

  executor_type get_executor() { return socket_.get_executor(); }
  next_layer_type& next_layer() { return socket_; }
  const next_layer_type& next_layer() const { return socket_; }
  lowest_layer_type& lowest_layer() { return socket_.lowest_layer(); }
  const SSL* ssl() const { return ssl_.get(); }
  void close();  // close_notify if it can be sent at once, then the descriptor

 private:
  using Signature = void(boost::system::error_code, std::size_t);
  using Wait = boost::asio::ip::tcp::socket::wait_type;

  // What one call of OpenSSL came to: an outcome, or what to wait for.
  struct Attempt {
    boost::system::error_code error;
    std::size_t bytes = 0;
    std::optional<Wait> wait;
  };
  Attempt attempt(boost::asio::mutable_buffer buffer);  // SSL_read
  Attempt attempt(boost::asio::const_buffer buffer);    // SSL_write
  Attempt outcome(int returned, std::size_t bytes);

  // The first buffer that is not empty: a stream may take fewer bytes than it is given.
  template <typename Buffer = boost::asio::mutable_buffer, typename Sequence>
  static Buffer first_of(const Sequence& buffers) {
    const auto end = boost::asio::buffer_sequence_end(buffers);
    for (auto at = boost::asio::buffer_sequence_begin(buffers); at != end; ++at) {
      if (const Buffer buffer(*at); buffer.size() > 0) return buffer;
    }
    return {};
  }

  template <typename Buffer>
  class Operation {
   public:
    Operation(TlsSocket& socket, Buffer buffer) : socket_(socket), buffer_(buffer) {}

    template <typename Self>
    void operator()(Self& self, boost::system::error_code error = {}) {
      if (attempted_.error || attempted_.bytes > 0 || finished_) return self.complete(attempted_.error, attempted_.bytes);
      if (error) return self.complete(error, 0);
      if (buffer_.size() > 0) attempted_ = socket_.attempt(buffer_);
      if (buffer_.size() > 0 && attempted_.wait) {
        waited_ = true;
        return socket_.socket_.async_wait(*attempted_.wait, std::move(self));
      }
      // An operation must not complete before its initiation has returned.
      if (waited_) return self.complete(attempted_.error, attempted_.bytes);
      finished_ = true;
      boost::asio::post(socket_.get_executor(), std::move(self));
    }

   private:
    TlsSocket& socket_;
    Buffer buffer_;
    Attempt attempted_;
    bool waited_ = false;
    bool finished_ = false;
  };

  boost::asio::ip::tcp::socket socket_;
  SslPtr ssl_;
};

// What Beast's WebSocket calls to end the connection after its closing handshake.
void teardown(boost::beast::role_type role, TlsSocket& socket, boost::system::error_code& error);

template <typename TeardownHandler>
void async_teardown(boost::beast::role_type role, TlsSocket& socket, TeardownHandler&& handler) {
  boost::system::error_code error;
  teardown(role, socket, error);
  boost::asio::post(socket.get_executor(), [handler = std::forward<TeardownHandler>(handler), error]() mutable { handler(error); });
}

}  // namespace postern
