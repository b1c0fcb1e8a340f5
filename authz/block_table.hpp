// BlockTable: from an address to the set of ipBlocks that contain it, by longest prefix in a hash table.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "authz/network_policy.hpp"
#include "base/ip.hpp"

namespace postern {

class BlockTable {
 public:
  BlockTable() = default;
  // REQUIRES: the blocks differ from each other.
  explicit BlockTable(const std::vector<IpBlock>& blocks);

  // The class of an address: addresses of one class are in the same blocks. 0: in none. The cost depends on how many
  // different prefix lengths there are, not on how many blocks.
  std::uint32_t find(const IpAddress& address) const;
  // Per class, the indexes of its blocks, ascending.
  const std::vector<std::vector<std::uint32_t>>& classes() const { return classes_; }

 private:
  static constexpr std::uint32_t empty = 0xffffffff;
  // The first bits of an address, as two words that are cheap to mask and to hash.
  struct Bits {
    std::uint64_t high = 0;
    std::uint64_t low = 0;
    bool operator==(const Bits&) const = default;
  };
  // All nodes of one family and prefix length: an open-addressed table, at most half full.
  struct Slot {
    Bits bits;
    std::uint32_t address_class = empty;
  };
  struct Level {
    unsigned prefix = 0;
    Bits mask;
    std::size_t size = 0;
    std::vector<Slot> slots;

    // The index of the slot that has these bits, or of the empty one where they belong.
    std::size_t at(const Bits& bits) const;
    void insert(const Bits& bits, std::uint32_t address_class);
  };

  static Bits bits_of(const IpAddress& address);
  Level& level_of(const Cidr& cidr);

  // Every cidr and every except is a node; the longest one that contains an address says all that holds for it.
  std::array<std::vector<Level>, 2> levels_;  // per family, longest prefix first
  std::vector<std::vector<std::uint32_t>> classes_{{}};
};

}  // namespace postern
