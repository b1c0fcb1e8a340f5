// TicketKeys: what seals TLS session tickets that carry their state (RFC 8446 section 4.6.1), so that several servers that share them can
// resume each other's sessions. Only the control plane's stream uses them; between sidecars resumption is stateful.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "certs/svid.hpp"
#include "certs/verify.hpp"

namespace postern {

// AES-256-CBC, then HMAC-SHA-256 over the result (RFC 5077 section 4).
struct TicketKey {
  std::array<std::uint8_t, 16> name{};  // travels in the clear, and says which key it was
  std::array<std::uint8_t, 32> cipher{};
  std::array<std::uint8_t, 32> mac{};
  bool operator==(const TicketKey&) const = default;

  // From the system's random numbers.
  static Result<TicketKey> make();
};

// Newest first. Immutable once shared.
struct TicketKeys {
  std::vector<TicketKey> keys;
  std::size_t seals = 0;  // the index of the one that seals; all of them open. REQUIRES: less than keys.size()
};
using TicketKeysPtr = std::shared_ptr<const TicketKeys>;

// What of a session only we understand: whom its full handshake proved, and until when that holds.
struct TicketContent {
  PeerIdentity peer;
  SystemTime ends;  // the earlier end of both SVIDs, whole seconds
};
std::string encode_ticket_content(const TicketContent& content);
// Nothing: not what encode_ticket_content() writes.
std::optional<TicketContent> decode_ticket_content(std::string_view text);

}  // namespace postern
