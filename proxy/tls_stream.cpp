#include "proxy/tls_stream.hpp"

#include <openssl/err.h>

#include <cstring>
#include <utility>

namespace postern {

// The BIO under OpenSSL: reads go to the socket, writes into the worker's gather buffer.
struct TlsStreamBio {
  static int write(BIO* bio, const char* data, std::size_t length, std::size_t* written) {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    GatherBuffer& gather = stream.gather_;
    if (gather.used > 0 && gather.owner != &stream) gather.owner->flush();
    gather.owner = &stream;
    if (gather.used + length > gather.bytes.size()) gather.bytes.resize(gather.used + length);  // a long certificate chain
    std::memcpy(gather.bytes.data() + gather.used, data, length);
    gather.used += length;
    *written = length;
    return 1;
  }

  static int read(BIO* bio, char* into, std::size_t length, std::size_t* got) {
    auto& stream = *static_cast<TlsStream*>(BIO_get_data(bio));
    BIO_clear_retry_flags(bio);
    const IoResult result = stream.socket_.read({reinterpret_cast<std::uint8_t*>(into), length});
    *got = result.bytes;
    switch (result.status) {
      case IoStatus::ok: return 1;
      case IoStatus::would_block: BIO_set_retry_read(bio); return 0;
      case IoStatus::end: BIO_set_flags(bio, BIO_FLAGS_IN_EOF); return 0;
      case IoStatus::reset: break;
    }
    return 0;
  }

  static long control(BIO* bio, int command, long, void*) {
    switch (command) {
      case BIO_CTRL_FLUSH: return 1;
      case BIO_CTRL_EOF: return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
      default: return 0;
    }
  }

  static BIO_METHOD* method() {
    // The one static: OpenSSL wants a method that outlives every BIO, and it never changes.
    static BIO_METHOD* const made = [] {
      BIO_METHOD* m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "postern socket");
      BIO_meth_set_write_ex(m, write);
      BIO_meth_set_read_ex(m, read);
      BIO_meth_set_ctrl(m, control);
      return m;
    }();
    return made;
  }
};

TlsStream::TlsStream(EventLoop& loop, GatherBuffer& gather, int fd, bool connected, std::shared_ptr<const TlsContext> context, SslPtr ssl)
    : socket_(loop, fd, connected), gather_(gather), context_(std::move(context)), ssl_(std::move(ssl)) {
  BIO* bio = BIO_new(TlsStreamBio::method());
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl_.get(), bio, bio);
}

TlsStream::~TlsStream() {
  if (gather_.owner != this) return;
  gather_.owner = nullptr;
  gather_.used = 0;
}

Task<HandshakeEnd> TlsStream::handshake(bool server) {
  if (server) {
    SSL_set_accept_state(ssl_.get());
  } else {
    SSL_set_connect_state(ssl_.get());
  }
  while (true) {
    if (socket_.watch().cancelled) co_return HandshakeEnd::cancelled;
    ERR_clear_error();
    const int result = SSL_do_handshake(ssl_.get());
    const int error = result == 1 ? SSL_ERROR_NONE : SSL_get_error(ssl_.get(), result);
    if (error == SSL_ERROR_SSL) {
      truncated_ = ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
      failure_ = TlsContext::handshake_failure(ssl_.get());
    }
    if (!flush()) co_return HandshakeEnd::peer_closed;  // after a failure, too: the alert tells the peer why
    if (result == 1) co_return HandshakeEnd::done;
    if (error == SSL_ERROR_SSL) {
      co_return truncated_ ? HandshakeEnd::peer_closed : HandshakeEnd::failed;
    }
    if (error != SSL_ERROR_WANT_READ) co_return HandshakeEnd::peer_closed;
    if (socket_.watch().failed) co_return HandshakeEnd::peer_closed;
    co_await until_ready(socket_.watch());
    if (!can_write() && !flush()) co_return HandshakeEnd::peer_closed;
  }
}

IoResult TlsStream::read(std::span<std::uint8_t> into) {
  ERR_clear_error();
  std::size_t got = 0;
  const int result = SSL_read_ex(ssl_.get(), into.data(), into.size(), &got);
  buffered_ = result == 1;
  const IoResult outcome = result == 1 ? IoResult{IoStatus::ok, got} : failed_read(result);
  if (gather_.used > 0 && gather_.owner == this && !flush()) return {IoStatus::reset, 0};  // reading may answer: key updates, alerts
  return outcome;
}

IoResult TlsStream::failed_read(int result) {
  switch (SSL_get_error(ssl_.get(), result)) {
    case SSL_ERROR_WANT_READ: return {IoStatus::would_block, 0};
    case SSL_ERROR_ZERO_RETURN: return {IoStatus::end, 0};
    case SSL_ERROR_SSL:
      // An alert after the handshake is how a client first hears that the server refused its certificate (RFC 8446 section 2).
      truncated_ = ERR_GET_REASON(ERR_peek_last_error()) == SSL_R_UNEXPECTED_EOF_WHILE_READING;
      if (!truncated_) failure_ = TlsContext::handshake_failure(ssl_.get());
      return {IoStatus::reset, 0};
    default: return {IoStatus::reset, 0};
  }
}

bool TlsStream::write(std::span<const std::uint8_t> from) {
  ERR_clear_error();
  while (!from.empty()) {  // with partial writes, one record a call
    std::size_t written = 0;
    if (SSL_write_ex(ssl_.get(), from.data(), from.size(), &written) != 1) return false;
    from = from.subspan(written);
  }
  return true;
}

bool TlsStream::flush() {
  std::span<const std::uint8_t> gathered;
  if (gather_.owner == this) gathered = std::span(gather_.bytes).first(std::exchange(gather_.used, 0));
  if (!pending_.empty()) {
    // In order: first what is already waiting, then what was gathered now.
    pending_.insert(pending_.end(), gathered.begin(), gathered.end());
    const IoResult result = socket_.write(std::span(pending_).subspan(pending_sent_));
    if (result.status == IoStatus::reset) return false;
    pending_sent_ += result.bytes;
    if (pending_sent_ == pending_.size()) {
      pending_ = {};  // gives the memory back: idle connections own none
      pending_sent_ = 0;
    }
    return true;
  }
  if (gathered.empty()) return true;
  const IoResult result = socket_.write(gathered);
  if (result.status == IoStatus::reset) return false;
  if (result.bytes < gathered.size()) pending_.assign(gathered.begin() + static_cast<std::ptrdiff_t>(result.bytes), gathered.end());
  return true;
}

bool TlsStream::send_close_notify() {
  ERR_clear_error();
  SSL_shutdown(ssl_.get());
  return flush();
}

}  // namespace postern
