// Tells TLS from anything else by the first bytes of a connection, without consuming them (architecture section 2, inbound step 2).
// A pure function of peeked bytes: it never waits and holds nothing between calls.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace postern {

// A ClientHello that needs more bytes than this, record headers included, is not taken for TLS: no sidecar sends one, and an
// application's own is bytes to us.
inline constexpr std::size_t max_client_hello_bytes = std::size_t{16} << 10;
// Likewise of one spread over more records: who sends it byte by byte must not make us read it anew thousands of times.
inline constexpr std::size_t max_client_hello_records = 32;

struct ClientHelloResult {
  enum class Kind : std::uint8_t {
    need_more,  // the start of a ClientHello so far; `needed` says when to look again
    not_tls,    // cannot be a well-formed ClientHello within these bounds, whatever follows
    tls         // a whole, well-formed ClientHello
  };
  Kind kind = Kind::not_tls;
  std::size_t needed = 0;  // need_more: bytes from the start of the connection (SO_RCVLOWAT); above bytes.size(), never above the maximum
  bool postern_alpn = false;  // tls: ALPN offers a protocol that starts with "postern/"
};

// `bytes` are the first bytes of the connection, as many as there are. RFC 8446 sections 4.1.2 and 5.1, RFC 7301 section 3.1; a
// ClientHello may be spread over several records. The answer for a prefix never contradicts the one for more of the same bytes.
ClientHelloResult parse_client_hello(std::span<const std::uint8_t> bytes);

}  // namespace postern
