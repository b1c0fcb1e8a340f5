#include "base/nearest_name.hpp"

#include <algorithm>
#include <array>
#include <cstddef>

namespace postern {
namespace {

constexpr std::size_t max_name = 64;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

// Levenshtein distance, one row at a time. REQUIRES: b.size() <= max_name
std::size_t edits(std::string_view a, std::string_view b) {
  std::array<std::size_t, max_name + 1> row{};
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replaced = diagonal + (lower(a[i - 1]) == lower(b[j - 1]) ? 0 : 1);
      diagonal = row[j];
      row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::optional<std::string_view> nearest_name(std::string_view name, std::span<const std::string_view> candidates) {
  if (name.size() > max_name) return std::nullopt;
  std::optional<std::string_view> nearest;
  std::size_t fewest = std::max<std::size_t>(1, name.size() / 3) + 1;
  for (const std::string_view candidate : candidates) {
    const std::size_t n = edits(candidate, name);
    if (n < fewest) {
      fewest = n;
      nearest = candidate;
    }
  }
  if (nearest || name.size() < 3) return nearest;
  const auto begun = std::find_if(candidates.begin(), candidates.end(), [&](std::string_view c) { return c.starts_with(name); });
  if (begun != candidates.end()) nearest = *begun;
  return nearest;
}

}  // namespace postern
