// The ticket keys that the replicas share, as they stand in their Secret, and how they succeed each other. No I/O.
#pragma once

#include <chrono>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "certs/ticket_keys.hpp"

namespace postern {

struct DatedTicketKey {
  SystemTime made;  // whole seconds, by the clock of the replica that made it
  TicketKey key;
  bool operator==(const DatedTicketKey&) const = default;
};
using TicketKeyRing = std::vector<DatedTicketKey>;  // newest first

inline constexpr std::size_t most_ticket_keys = 16;

// One line for each: "<unix seconds> <name, cipher and MAC key, hexadecimal>".
std::string encode_ticket_keys(const TicketKeyRing& ring);
// Refused: anything else, no key at all, or too many. What is returned is in order.
Result<TicketKeyRing> decode_ticket_keys(std::string_view text);

// The ring with a new key if its newest is older than `rotation`, without keys older than three of them or more than one in the future
// (some clock was wrong); the same ring where nothing is due.
Result<TicketKeyRing> rotated(TicketKeyRing ring, SystemTime now, std::chrono::seconds rotation);

// A key seals once every replica has had `settle` to learn of it: the newest such one, else the oldest there is.
TicketKeys keys_in_use(const TicketKeyRing& ring, SystemTime now, std::chrono::seconds settle);

}  // namespace postern
