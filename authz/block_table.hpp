// BlockTable: from an address to the set of ipBlocks that contain it, by longest prefix in a hash table.
#pragma once

#include <array>
#include <cstdint>
#include <unordered_map>
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
  struct CidrHash {
    std::size_t operator()(const Cidr& cidr) const noexcept { return IpAddressHash{}(cidr.address()) * 131 + cidr.prefix(); }
  };

  // Every cidr and every except is a node; the longest one that contains an address says all that holds for it.
  std::unordered_map<Cidr, std::uint32_t, CidrHash> class_of_;
  std::array<std::vector<unsigned>, 2> prefixes_;  // per family, those that occur, longest first
  std::vector<std::vector<std::uint32_t>> classes_{{}};
};

}  // namespace postern
