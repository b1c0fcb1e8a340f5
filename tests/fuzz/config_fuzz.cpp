// A configuration, whatever its bytes: refused with words, or accepted and then the same after printing and reading it again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "proxy/config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto config = postern::parse_config({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!config) {
    if (config.error().message.empty()) std::abort();
    return 0;
  }
  const auto valid = postern::validate(*config);
  if (!valid && valid.error().message.empty()) std::abort();
  const std::string printed = postern::print_config(*config);
  const auto again = postern::parse_config(printed, "printed");
  if (!again || postern::print_config(*again) != printed) std::abort();
  return 0;
}
