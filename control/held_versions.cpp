#include "control/held_versions.hpp"

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

namespace postern {

HeldVersions::HeldVersions(const std::map<std::string, std::string>& held) { update(held, {}); }

HeldVersions::Hash HeldVersions::read(std::string_view text) {
  Hash hash{};
  if (text.size() != 2 * hash.size()) return {};
  for (std::size_t i = 0; i < hash.size(); ++i) {
    const char* const digits = text.data() + 2 * i;
    const auto [end, error] = std::from_chars(digits, digits + 2, hash[i], 16);
    if (error != std::errc{} || end != digits + 2) return {};
  }
  return hash;
}

std::string_view HeldVersions::name_at(std::size_t position) const {
  const Entry& entry = entries_[position];
  return std::string_view(names_).substr(entry.name_at, entry.name_size);
}

std::size_t HeldVersions::position_of(std::string_view name) const {
  const auto is_before = [this](const Entry& entry, std::string_view wanted) {
    return std::string_view(names_).substr(entry.name_at, entry.name_size) < wanted;
  };
  return static_cast<std::size_t>(std::lower_bound(entries_.begin(), entries_.end(), name, is_before) - entries_.begin());
}

bool HeldVersions::has_hash_at(std::size_t position, std::string_view hash) const {
  const Hash wanted = read(hash);
  return wanted != Hash{} && entries_[position].hash == wanted;
}

std::string HeldVersions::hash_of(std::string_view name) const {
  constexpr std::string_view digits = "0123456789abcdef";
  const std::size_t position = position_of(name);
  std::string text;
  if (position == size() || name_at(position) != name) return text;
  for (const std::uint8_t byte : entries_[position].hash) {
    text += digits[byte >> 4U];
    text += digits[byte & 15U];
  }
  return text;
}

bool HeldVersions::has(std::string_view name, std::string_view hash) const {
  const std::size_t position = position_of(name);
  return position < size() && name_at(position) == name && has_hash_at(position, hash);
}

void HeldVersions::append(std::string_view name, const Hash& hash) {
  entries_.push_back({static_cast<std::uint32_t>(names_.size()), static_cast<std::uint32_t>(name.size()), hash});
  names_.append(name);
}

void HeldVersions::update(const std::map<std::string, std::string>& put, const std::vector<std::string>& removed) {
  const HeldVersions before = std::exchange(*this, HeldVersions());
  const std::set<std::string_view> gone(removed.begin(), removed.end());
  std::size_t bytes = before.names_.size();
  for (const auto& [name, hash] : put) {
    if (!before.contains(name)) bytes += name.size();
  }
  names_.reserve(bytes);
  entries_.reserve(before.size() + put.size());
  auto added = put.begin();
  for (std::size_t i = 0; i < before.size(); ++i) {
    const std::string_view name = before.name_at(i);
    for (; added != put.end() && added->first < name; ++added) append(added->first, read(added->second));
    if (added != put.end() && added->first == name) {
      append(added->first, read(added->second));
      ++added;
    } else if (!gone.contains(name)) {
      append(name, before.entries_[i].hash);
    }
  }
  for (; added != put.end(); ++added) append(added->first, read(added->second));
  entries_.shrink_to_fit();
}

}  // namespace postern
