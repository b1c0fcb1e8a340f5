// The nearest valid name, for "did you mean".
#pragma once

#include <optional>
#include <span>
#include <string_view>

namespace postern {

// The candidate with the fewest edits (insert, remove, replace a letter; case does not count), if it is near enough to be
// what was meant: at most a third of the name's letters, and one at least; else one that begins with the name. A name of over
// 64 bytes has none.
std::optional<std::string_view> nearest_name(std::string_view name, std::span<const std::string_view> candidates);

}  // namespace postern
