// TlsSocket: TLS over an Asio TCP socket for the control plane's stream: an AsyncStream for Beast. OpenSSL reads and writes the descriptor
// itself, so that an idle stream holds no buffer (asio::ssl::stream keeps 68 KiB for each). For what is not the data path.
#pragma once

#include <openssl/ssl.h>

#include <boost/asio/async_result.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/compose.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/role.hpp>
#include <boost/system/error_code.hpp>
#include <string>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

class TlsSocket {
 public:
  using executor_type = boost::asio::ip::tcp::socket::executor_type;
  using lowest_layer_type = boost::asio::ip::tcp::socket::lowest_layer_type;

  // `ssl` knows its role (accept or connect state). Makes the socket non-blocking.
  TlsSocket(boost::asio::ip::tcp::socket socket, SslPtr ssl);

  // Handshake; the error says what OpenSSL said.
  boost::asio::awaitable<Result<void>> handshake();

  // AsyncReadStream and AsyncWriteStream. The end of TLS (close_notify) is asio::error::eof; a TCP end without it, ssl::error::stream_truncated.
  template <typename MutableBufferSequence, typename CompletionToken>
  auto async_read_some(const MutableBufferSequence& buffers, CompletionToken&& token);
  template <typename ConstBufferSequence, typename CompletionToken>
  auto async_write_some(const ConstBufferSequence& buffers, CompletionToken&& token);

  executor_type get_executor() { return socket_.get_executor(); }
  boost::asio::ip::tcp::socket& next_layer() { return socket_; }
  lowest_layer_type& lowest_layer() { return socket_.lowest_layer(); }
  const SSL* ssl() const { return ssl_.get(); }
  void close();  // close_notify if it can be sent at once, then the descriptor

 private:
  boost::asio::ip::tcp::socket socket_;
  SslPtr ssl_;
};

}  // namespace postern
