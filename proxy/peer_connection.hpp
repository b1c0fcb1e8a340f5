// PeerConnection: an mTLS connection to another sidecar (or to a plain SPIFFE mTLS peer). It carries streams, one at a time.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "proxy/frames.hpp"
#include "proxy/tls_stream.hpp"

namespace postern {

class PeerConnection {
 public:
  PeerConnection(EventLoop& loop, GatherBuffer& gather, int fd, bool connected, std::shared_ptr<const TlsContext> context, SslPtr ssl,
                 SocketAddress remote)
      : tls(loop, gather, fd, connected, std::move(context), std::move(ssl)), remote(remote) {}

  // What the peer sent: first what an earlier read kept back, then from TLS.
  IoResult read(std::span<std::uint8_t> into);
  bool may_read() const { return !kept_.empty() || tls.may_read(); }
  // Keeps bytes that belong to what comes next (early data; the next stream's OPEN). REQUIRES: nothing is kept.
  void keep(std::span<const std::uint8_t> bytes) { kept_.assign(bytes.begin(), bytes.end()); }
  bool keeps_nothing() const { return kept_.empty(); }

  // Queues a control frame and sends it. False: reset.
  bool send_control(FrameType type, std::span<const std::uint8_t> payload = {});

  // After the handshake: identity, ALPN, connection ID.
  void adopt_handshake();

  TlsStream tls;
  SocketAddress remote;                          // outbound: where we connected; inbound: where it came from
  std::shared_ptr<const PeerIdentity> identity;  // verified
  TlsFacts facts;
  std::optional<std::array<std::uint8_t, 16>> connection_id;
  bool framed = false;  // postern/1; else raw bytes
  FrameReader reader;
  std::uint32_t streams = 0;  // opened so far
  bool aborted = false;       // RESET was sent: nothing that is still on its way matters

 private:
  std::vector<std::uint8_t> kept_;
};

}  // namespace postern
