#include "control/ticket_key_ring.hpp"

#include <algorithm>
#include <charconv>

namespace postern {
namespace {

constexpr std::size_t key_bytes = sizeof(TicketKey::name) + sizeof(TicketKey::cipher) + sizeof(TicketKey::mac);
constexpr std::int64_t latest = 1LL << 33;  // seconds: beyond it a time_point may overflow

void append_hexadecimal(std::string& text, const auto& bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  for (const std::uint8_t byte : bytes) text.append(1, digits[byte >> 4U]).append(1, digits[byte & 15U]);
}

// Takes its part from the front of the text. False: no hexadecimal digits.
bool take_hexadecimal(std::string_view& text, auto& bytes) {
  for (std::uint8_t& byte : bytes) {
    const auto [end, error] = std::from_chars(text.data(), text.data() + 2, byte, 16);
    if (error != std::errc{} || end != text.data() + 2) return false;
    text.remove_prefix(2);
  }
  return true;
}

std::optional<DatedTicketKey> decode_line(std::string_view line) {
  DatedTicketKey out;
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), seconds);
  if (error != std::errc{} || seconds < 0 || seconds > latest) return std::nullopt;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  if (line.size() != 1 + 2 * key_bytes || line.front() != ' ') return std::nullopt;
  line.remove_prefix(1);
  out.made = SystemTime(std::chrono::seconds(seconds));
  if (!take_hexadecimal(line, out.key.name) || !take_hexadecimal(line, out.key.cipher) || !take_hexadecimal(line, out.key.mac))
    return std::nullopt;
  return out;
}

void sort(TicketKeyRing& ring) {
  std::sort(ring.begin(), ring.end(),
            [](const DatedTicketKey& a, const DatedTicketKey& b) { return a.made != b.made ? a.made > b.made : a.key.name < b.key.name; });
}

}  // namespace

std::string encode_ticket_keys(const TicketKeyRing& ring) {
  std::string text;
  for (const auto& [made, key] : ring) {
    text += std::to_string(std::chrono::duration_cast<std::chrono::seconds>(made.time_since_epoch()).count()) + " ";
    append_hexadecimal(text, key.name);
    append_hexadecimal(text, key.cipher);
    append_hexadecimal(text, key.mac);
    text += "\n";
  }
  return text;
}

Result<TicketKeyRing> decode_ticket_keys(std::string_view text) {
  TicketKeyRing ring;
  while (!text.empty()) {
    const std::string_view line = text.substr(0, text.find('\n'));
    text.remove_prefix(std::min(line.size() + 1, text.size()));
    const auto key = decode_line(line);
    if (!key) return Error{"expected lines of a time and a key; delete the Secret, and new keys are made", {}};
    if (ring.size() == most_ticket_keys) return Error{"more than " + std::to_string(most_ticket_keys) + " keys; delete the Secret", {}};
    ring.push_back(*key);
  }
  if (ring.empty()) return Error{"there is no key; delete the Secret, and new keys are made", {}};
  sort(ring);
  return ring;
}

Result<TicketKeyRing> rotated(TicketKeyRing ring, SystemTime now, std::chrono::seconds rotation) {
  std::erase_if(ring, [&](const DatedTicketKey& each) { return each.made > now + rotation || each.made < now - 3 * rotation; });
  if (!ring.empty() && ring.front().made > now - rotation) return ring;
  auto key = TicketKey::make();
  if (!key) return key.error();
  ring.push_back({std::chrono::floor<std::chrono::seconds>(now), *key});
  sort(ring);
  if (ring.size() > most_ticket_keys) ring.resize(most_ticket_keys);
  return ring;
}

TicketKeys keys_in_use(const TicketKeyRing& ring, SystemTime now, std::chrono::seconds settle) {
  TicketKeys out;
  for (const DatedTicketKey& each : ring) out.keys.push_back(each.key);
  const auto settled = std::find_if(ring.begin(), ring.end(), [&](const DatedTicketKey& each) { return each.made + settle <= now; });
  out.seals = settled == ring.end() ? ring.size() - 1 : static_cast<std::size_t>(settled - ring.begin());
  return out;
}

}  // namespace postern
