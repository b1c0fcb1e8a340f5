#include "certs/ticket_keys.hpp"

#include <openssl/rand.h>

#include <charconv>

namespace postern {
namespace {

constexpr std::string_view format = "postern-ticket/1";
constexpr std::size_t longest_serial = 64;

std::int64_t seconds_of(SystemTime time) { return std::chrono::duration_cast<std::chrono::seconds>(time.time_since_epoch()).count(); }

std::optional<SystemTime> time_of(std::string_view text) {
  std::int64_t seconds = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seconds);
  constexpr std::int64_t most = 1LL << 33;  // beyond it a time_point may overflow
  if (error != std::errc{} || end != text.data() + text.size() || seconds < 0 || seconds > most) return std::nullopt;
  return SystemTime(std::chrono::seconds(seconds));
}

bool is_hexadecimal(std::string_view text) {
  return !text.empty() && text.size() <= longest_serial && text.find_first_not_of("0123456789abcdefABCDEF") == std::string_view::npos;
}

}  // namespace

Result<TicketKey> TicketKey::make() {
  TicketKey key;
  if (RAND_bytes(key.name.data(), static_cast<int>(key.name.size())) != 1 ||
      RAND_priv_bytes(key.cipher.data(), static_cast<int>(key.cipher.size())) != 1 ||
      RAND_priv_bytes(key.mac.data(), static_cast<int>(key.mac.size())) != 1) {
    return openssl_error("cannot make a ticket key");
  }
  return key;
}

std::string encode_ticket_content(const TicketContent& content) {
  std::string text(format);
  text.append("\n").append(content.peer.id.text()).append("\n").append(content.peer.serial);
  text.append("\n").append(std::to_string(seconds_of(content.peer.not_after)));
  return text.append("\n").append(std::to_string(seconds_of(content.ends)));
}

std::optional<TicketContent> decode_ticket_content(std::string_view text) {
  std::array<std::string_view, 5> lines;
  for (std::size_t i = 0; i < lines.size(); ++i) {
    const std::size_t end = text.find('\n');
    const bool is_last = i + 1 == lines.size();
    if ((end == std::string_view::npos) != is_last) return std::nullopt;
    lines[i] = text.substr(0, end);
    text.remove_prefix(is_last ? text.size() : end + 1);
  }
  auto id = SpiffeId::parse(lines[1]);
  const auto not_after = time_of(lines[3]);
  const auto ends = time_of(lines[4]);
  if (lines[0] != format || !id || !is_hexadecimal(lines[2]) || !not_after || !ends) return std::nullopt;
  return TicketContent{{*std::move(id), std::string(lines[2]), *not_after}, *ends};
}

}  // namespace postern
