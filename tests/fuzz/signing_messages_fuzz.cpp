// Any bytes as a message of the signing port: what is read is written and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "certs/signing_messages.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto request = postern::decode_signing_request(text)) {
    const auto again = postern::decode_signing_request(encode(*request));
    // Escapes may make it longer than what may be sent.
    if (again && (again->token != request->token || again->csr != request->csr || again->bundle_sequence != request->bundle_sequence))
      std::abort();
  }
  if (const auto answer = postern::decode_signing_answer(text)) {
    const auto again = postern::decode_signing_answer(encode(*answer));
    if (again && (again->chain != answer->chain || !(again->bundle == answer->bundle))) std::abort();
  }
  postern::signing_error_of(text);
  return 0;
}
