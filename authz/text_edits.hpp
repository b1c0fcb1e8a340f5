// Edits that make one text of another: how a large resource travels when little of it has changed (docs/stream.md).
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace postern {

// At byte `at` of the text, as the edits before this one have left it, `removed` bytes give way to `inserted`.
struct TextEdit {
  std::uint64_t at = 0;
  std::uint64_t removed = 0;
  std::string inserted;

  bool operator==(const TextEdit&) const = default;
};

// The fewest edits, of whole items between commas as the resources' JSON has them. Nothing where more than `most` items differ: then the
// text itself is no longer. Takes time in proportion to the texts and to how much they differ (Myers, "An O(ND) Difference Algorithm").
std::optional<std::vector<TextEdit>> edits_between(std::string_view from, std::string_view to, std::size_t most);

// Fails where an edit lies outside the text, or makes it longer than `bytes_max`.
Result<std::string> edited(std::string text, const std::vector<TextEdit>& edits, std::size_t bytes_max);

}  // namespace postern
