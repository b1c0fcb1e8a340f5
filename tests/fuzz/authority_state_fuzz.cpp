// Any bytes as the authority's state, or as a replica's report: what is read is written and read again as the same.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "control/authority_state.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto state = decode_authority_state(text)) {
    const std::string written = encode(*state);
    const auto again = decode_authority_state(written);
    if (again && encode(*again) != written) std::abort();
    const SystemTime later = state->since + std::chrono::hours(1);
    const AckReports reports{{"run", AckReport{"replica", state->sequence, 0, later, std::chrono::seconds(60)}}};
    const auto next = next_step(*state, reports, std::chrono::seconds(60), std::chrono::milliseconds(1000), later);
    if (next && next->sequence < state->sequence) std::abort();
  }
  if (const auto report = decode_ack_report(text)) {
    if (const auto again = decode_ack_report(encode(*report)); again && !(*again == *report)) std::abort();
  }
  return 0;
}
