#include "authz/text_edits.hpp"

#include <algorithm>

namespace postern {
namespace {

using Items = std::vector<std::string_view>;
using Reach = std::vector<std::ptrdiff_t>;  // of d differences: by diagonal k from -d to d, how far into `from` one comes

// Each with the comma that ends it.
Items items_of(std::string_view text) {
  Items items;
  while (!text.empty()) {
    const std::size_t comma = text.find(',');
    items.push_back(text.substr(0, comma == std::string_view::npos ? comma : comma + 1));
    text.remove_prefix(items.back().size());
  }
  return items;
}

// Whether the best way to diagonal k, of d differences, comes from the one above: by an item that is inserted.
bool inserts(const Reach& before, std::ptrdiff_t k, std::ptrdiff_t d) {
  const auto at = [&](std::ptrdiff_t diagonal) { return before[static_cast<std::size_t>(diagonal + d - 1)]; };
  return k == -d || (k != d && at(k - 1) < at(k + 1));
}

struct Hunk {
  std::ptrdiff_t from_begin, from_end, to_begin, to_end;
};

// From the last difference to the first, as the reaches of 0, 1, 2 ... differences lead back.
std::vector<Hunk> hunks_of(const std::vector<Reach>& reaches, std::ptrdiff_t x, std::ptrdiff_t y) {
  std::vector<Hunk> hunks;
  for (auto d = static_cast<std::ptrdiff_t>(reaches.size()); d > 0; --d) {
    const Reach& before = reaches[static_cast<std::size_t>(d - 1)];
    const bool inserted = inserts(before, x - y, d);
    const std::ptrdiff_t k = x - y + (inserted ? 1 : -1);
    const std::ptrdiff_t from = before[static_cast<std::size_t>(k + d - 1)];
    const Hunk step{from, from + (inserted ? 0 : 1), from - k, from - k + (inserted ? 1 : 0)};
    if (!hunks.empty() && hunks.back().from_begin == step.from_end && hunks.back().to_begin == step.to_end) {
      hunks.back().from_begin = step.from_begin;
      hunks.back().to_begin = step.to_begin;
    } else {
      hunks.push_back(step);
    }
    x = step.from_begin;
    y = step.to_begin;
  }
  return hunks;
}

std::optional<std::vector<Hunk>> differences(const Items& from, const Items& to, std::size_t most) {
  const auto n = static_cast<std::ptrdiff_t>(from.size());
  const auto m = static_cast<std::ptrdiff_t>(to.size());
  std::vector<Reach> reaches;
  for (std::ptrdiff_t d = 0; d <= static_cast<std::ptrdiff_t>(most); ++d) {
    Reach reach(static_cast<std::size_t>(2 * d + 1));
    for (std::ptrdiff_t k = -d; k <= d; k += 2) {
      std::ptrdiff_t x = 0;
      if (d > 0) {
        const Reach& before = reaches.back();
        x = inserts(before, k, d) ? before[static_cast<std::size_t>(k + d)] : before[static_cast<std::size_t>(k + d - 2)] + 1;
      }
      while (x < n && x - k < m && from[static_cast<std::size_t>(x)] == to[static_cast<std::size_t>(x - k)]) ++x;
      if (x >= n && x - k >= m) return hunks_of(reaches, n, m);
      reach[static_cast<std::size_t>(k + d)] = x;
    }
    reaches.push_back(std::move(reach));
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::vector<TextEdit>> edits_between(std::string_view from, std::string_view to, std::size_t most) {
  Items before = items_of(from);
  Items after = items_of(to);
  // What is the same at both ends is all but a little.
  const auto same = std::mismatch(before.begin(), before.end(), after.begin(), after.end());
  std::size_t begin = 0;
  for (auto it = before.begin(); it != same.first; ++it) begin += it->size();
  before.erase(before.begin(), same.first);
  after.erase(after.begin(), same.second);
  const auto same_end = std::mismatch(before.rbegin(), before.rend(), after.rbegin(), after.rend());
  before.erase(same_end.first.base(), before.end());
  after.erase(same_end.second.base(), after.end());

  const auto hunks = differences(before, after, most);
  if (!hunks) return std::nullopt;
  const auto bytes = [](const Items& items, std::ptrdiff_t first, std::ptrdiff_t last) {
    std::size_t sum = 0;
    for (std::ptrdiff_t i = first; i < last; ++i) sum += items[static_cast<std::size_t>(i)].size();
    return sum;
  };
  // From the last to the first: so each place is the same in `from` as in what the edits before have made of it.
  std::vector<TextEdit> edits;
  for (const Hunk& hunk : *hunks) {
    const std::size_t at = bytes(before, 0, hunk.from_begin);
    const std::size_t to_at = begin + bytes(after, 0, hunk.to_begin);
    edits.push_back({begin + at, bytes(before, hunk.from_begin, hunk.from_end),
                     std::string(to.substr(to_at, bytes(after, hunk.to_begin, hunk.to_end)))});
  }
  return edits;
}

Result<std::string> edited(std::string text, const std::vector<TextEdit>& edits, std::size_t bytes_max) {
  for (const TextEdit& edit : edits) {
    if (edit.at > text.size() || edit.removed > text.size() - edit.at) return Error{"an edit lies outside the text", ""};
    if (text.size() - edit.removed + edit.inserted.size() > bytes_max) return Error{"the edits make it too long", ""};
    text.replace(edit.at, edit.removed, edit.inserted);
  }
  return text;
}

}  // namespace postern
