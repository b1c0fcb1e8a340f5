// TlsStream: TLS over a non-blocking socket. OpenSSL reads from the socket itself (read-ahead) and writes into a buffer of the worker,
// which goes out in one system call per wake-up. Idle, it owns no buffer.
#pragma once

#include <chrono>
#include <memory>
#include <span>
#include <vector>

#include "certs/tls_context.hpp"
#include "proxy/socket.hpp"
#include "proxy/task.hpp"

namespace postern {

class TlsStream;

// What the streams of one worker share: only one of them is between a write and its flush at any time.
class GatherBuffer {
 public:
  // From here on it is time to flush: larger sends cost less a byte, but what a slow peer does not take is kept.
  static constexpr std::size_t full = 128U << 10;
  // What is written between two looks at should_flush() (128 KB) still fits, with its records' overhead and an alert.
  static constexpr std::size_t capacity = full + (136U << 10);
  std::vector<std::uint8_t> bytes = std::vector<std::uint8_t>(capacity);
  std::size_t used = 0;
  TlsStream* owner = nullptr;  // whose bytes they are while used > 0: they must never leave through another stream
};

enum class HandshakeEnd : std::uint8_t { done, failed, cancelled, peer_closed };

class TlsStream {
 public:
  // Takes the socket's descriptor; `ssl` comes from `context`.
  TlsStream(EventLoop& loop, GatherBuffer& gather, int fd, bool connected, std::shared_ptr<const TlsContext> context, SslPtr ssl);
  ~TlsStream();
  TlsStream(const TlsStream&) = delete;
  TlsStream& operator=(const TlsStream&) = delete;

  // Waits for its end; socket().cancel() gives it up. After `failed`, failure() says why.
  Task<HandshakeEnd> handshake(bool server);
  const HandshakeFailure& failure() const { return failure_; }

  // Never wait. `end`: close_notify. `reset`: anything else that ends a stream (TCP end without close_notify sets truncated()).
  IoResult read(std::span<std::uint8_t> into);
  // Encrypts into the gather buffer; everything is taken. REQUIRES: can_write(), from.size() <= frame_bytes_max. False: the TLS state is
  // broken.
  bool write(std::span<const std::uint8_t> from);
  // Sends what was gathered. What the socket does not take is kept here until it does. False: reset.
  bool flush();
  // Nothing is waiting to be sent.
  bool can_write() const { return pending_.empty(); }
  // Enough has been gathered for one send.
  bool should_flush() const { return gather_.owner == this && gather_.used >= GatherBuffer::full; }
  // close_notify: this direction has ended. The socket stays.
  bool send_close_notify();

  bool may_read() const { return socket_.watch().readable || buffered_; }
  bool truncated() const { return truncated_; }
  Socket& socket() { return socket_; }
  SSL* ssl() const { return ssl_.get(); }
  const TlsContext& context() const { return *context_; }

 private:
  friend struct TlsStreamBio;
  IoResult failed_read(int result);
  Socket socket_;
  GatherBuffer& gather_;
  std::shared_ptr<const TlsContext> context_;
  SslPtr ssl_;
  std::vector<std::uint8_t> pending_;  // encrypted, not yet taken by the socket; freed when empty
  std::size_t pending_sent_ = 0;
  bool buffered_ = true;  // OpenSSL may hold bytes that no event will announce
  bool truncated_ = false;
  HandshakeFailure failure_;
};

}  // namespace postern
