#include "control/quantity.hpp"

#include <array>
#include <charconv>
#include <utility>

namespace postern {

std::optional<double> parse_quantity(std::string_view text) {
  constexpr std::array<std::pair<std::string_view, double>, 13> kSuffixes{{{"", 1.0},
                                                                           {"m", 1e-3},
                                                                           {"k", 1e3},
                                                                           {"M", 1e6},
                                                                           {"G", 1e9},
                                                                           {"T", 1e12},
                                                                           {"P", 1e15},
                                                                           {"Ki", 1024.0},
                                                                           {"Mi", 1048576.0},
                                                                           {"Gi", 1073741824.0},
                                                                           {"Ti", 1099511627776.0},
                                                                           {"Pi", 1125899906842624.0},
                                                                           {"Ei", 1152921504606846976.0}}};
  const std::size_t end = std::min(text.find_first_not_of("0123456789."), text.size());
  if (end == 0 || end > 18 || text.front() == '.') return std::nullopt;
  double value = 0;
  const auto [stop, error] = std::from_chars(text.data(), text.data() + end, value, std::chars_format::fixed);
  if (error != std::errc{} || stop != text.data() + end) return std::nullopt;
  for (const auto& [suffix, factor] : kSuffixes) {
    if (suffix == text.substr(end)) return value * factor;
  }
  return std::nullopt;
}

}  // namespace postern
