// Any bytes as the sidecar's kept identity: what is read is written and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "proxy/identity_state.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto state = postern::decode_identity_state({reinterpret_cast<const char*>(data), size});
  if (!state) return 0;
  const auto again = postern::decode_identity_state(postern::encode_identity_state(*state));
  if (!again || again->key != state->key || again->chain != state->chain || !(again->bundle == state->bundle)) std::abort();
  return 0;
}
