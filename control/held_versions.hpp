// HeldVersions: what a sidecar holds: the names of resources, each with its hash. Packed, because every stream has one: about 60 bytes for
// a resource, where a map of strings takes 190.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

class HeldVersions {
 public:
  HeldVersions() = default;
  // A hash that content_hash() would not write equals none.
  HeldVersions(const std::map<std::string, std::string>& held);  // NOLINT(google-explicit-constructor): a Hello's

  std::size_t size() const { return entries_.size(); }
  bool empty() const { return entries_.empty(); }
  bool contains(std::string_view name) const { return position_of(name) < size() && name_at(position_of(name)) == name; }
  // Whether it has the resource with that very hash.
  bool has(std::string_view name, std::string_view hash) const;
  // As content_hash() writes it; empty: it has none of that name.
  std::string hash_of(std::string_view name) const;
  // The position of the first name that is not before this one; size(): there is none.
  std::size_t first_from(std::string_view name) const { return position_of(name); }
  // In order of their names.
  std::string_view name_at(std::size_t position) const;
  bool has_hash_at(std::size_t position, std::string_view hash) const;

  // What an acknowledgement adds or replaces, and what it takes away.
  void update(const std::map<std::string, std::string>& put, const std::vector<std::string>& removed);

 private:
  using Hash = std::array<std::uint8_t, 16>;
  struct Entry {
    std::uint32_t name_at = 0;  // into names_
    std::uint32_t name_size = 0;
    Hash hash{};
  };

  static Hash read(std::string_view hash);               // zeros where it is none
  std::size_t position_of(std::string_view name) const;  // of the first that is not before it
  void append(std::string_view name, const Hash& hash);

  std::string names_;
  std::vector<Entry> entries_;  // by name
};

}  // namespace postern
