// What decrypts as a ticket, and what somebody wrote into the Secret of ticket keys: read, or refused; and what is read is written the
// same.
#include "certs/ticket_keys.hpp"

#include <cstdint>
#include <cstdlib>

#include "control/ticket_key_ring.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto content = decode_ticket_content(text)) {
    const auto again = decode_ticket_content(encode_ticket_content(*content));
    if (!again || !(again->peer.id == content->peer.id) || again->ends != content->ends) std::abort();
  }
  if (const auto ring = decode_ticket_keys(text)) {
    if (ring->empty() || decode_ticket_keys(encode_ticket_keys(*ring)).value() != *ring) std::abort();
    (void)keys_in_use(*ring, SystemTime(std::chrono::seconds(1'800'000'000)), std::chrono::seconds(60));
  }
  return 0;
}
