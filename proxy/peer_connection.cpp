#include "proxy/peer_connection.hpp"

#include <algorithm>
#include <cstring>

namespace postern {

IoResult PeerConnection::read(std::span<std::uint8_t> into) {
  if (kept_.empty()) return tls.read(into);
  const std::size_t n = std::min(kept_.size(), into.size());
  std::memcpy(into.data(), kept_.data(), n);
  if (n == kept_.size()) {
    kept_ = {};
  } else {
    kept_.erase(kept_.begin(), kept_.begin() + static_cast<std::ptrdiff_t>(n));
  }
  return {IoStatus::ok, n};
}

bool PeerConnection::send_control(FrameType type, std::span<const std::uint8_t> payload) {
  std::array<std::uint8_t, frame_header_bytes + 2> bytes{};
  const auto header = frame_header(type, payload.size());
  std::copy(header.begin(), header.end(), bytes.begin());
  std::copy(payload.begin(), payload.end(), bytes.begin() + frame_header_bytes);
  return tls.write(std::span(bytes).first(frame_header_bytes + payload.size())) && tls.flush();
}

void PeerConnection::adopt_handshake() {
  identity = TlsContext::peer_identity(tls.ssl());
  facts = TlsContext::facts(tls.ssl());
  framed = TlsContext::used_postern_alpn(tls.ssl());
  if (const auto id = TlsContext::export_connection_id(tls.ssl())) connection_id = *id;
}

}  // namespace postern
