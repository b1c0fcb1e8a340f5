#include "authz/block_table.hpp"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

namespace postern {
namespace {

// Outer blocks come before those inside them, and families do not mix.
struct OuterFirst {
  bool operator()(const Cidr& a, const Cidr& b) const {
    return std::make_tuple(a.address().family(), a.address(), a.prefix()) < std::make_tuple(b.address().family(), b.address(), b.prefix());
  }
};

struct Edges {
  std::vector<std::uint32_t> begins;   // blocks whose cidr this is
  std::vector<std::uint32_t> excepts;  // blocks that except this
};

}  // namespace

BlockTable::BlockTable(const std::vector<IpBlock>& blocks) {
  std::map<Cidr, Edges, OuterFirst> nodes;
  for (std::uint32_t i = 0; i < blocks.size(); ++i) {
    nodes[blocks[i].cidr].begins.push_back(i);
    for (const Cidr& except : blocks[i].except) nodes[except].excepts.push_back(i);
  }

  using Members = std::vector<std::uint32_t>;
  std::map<Members, std::uint32_t> class_of_members{{{}, 0}};
  std::vector<std::pair<Cidr, Members>> outer;  // the blocks around the current node, innermost last
  for (const auto& [cidr, edges] : nodes) {
    while (!outer.empty() && !outer.back().first.contains(cidr)) outer.pop_back();
    Members members = outer.empty() ? Members{} : outer.back().second;
    members.insert(members.end(), edges.begins.begin(), edges.begins.end());
    std::sort(members.begin(), members.end());
    std::erase_if(members, [&excepts = edges.excepts](std::uint32_t block) {
      return std::find(excepts.begin(), excepts.end(), block) != excepts.end();
    });

    const auto [known, is_new] = class_of_members.try_emplace(members, static_cast<std::uint32_t>(classes_.size()));
    if (is_new) classes_.push_back(members);
    level_of(cidr).insert(bits_of(cidr.address()), known->second);
    outer.emplace_back(cidr, std::move(members));
  }
}

std::size_t BlockTable::Level::at(const Bits& bits) const {
  // Masked bits are all alike at one end: mixed twice, so that every bit counts in the low ones (MurmurHash3's finalizer).
  std::uint64_t mixed = bits.high ^ (bits.low * 0x9e3779b97f4a7c15U);
  mixed = (mixed ^ (mixed >> 33U)) * 0xff51afd7ed558ccdU;
  mixed = (mixed ^ (mixed >> 33U)) * 0xc4ceb9fe1a85ec53U;
  std::size_t i = static_cast<std::size_t>(mixed ^ (mixed >> 33U)) & (slots.size() - 1);
  while (slots[i].address_class != empty && slots[i].bits != bits) i = (i + 1) & (slots.size() - 1);
  return i;
}

void BlockTable::Level::insert(const Bits& bits, std::uint32_t address_class) {
  if (2 * (size + 1) > slots.size()) {
    const std::vector<Slot> before = std::exchange(slots, std::vector<Slot>(std::max<std::size_t>(8, 2 * slots.size())));
    for (const Slot& slot : before) {
      if (slot.address_class != empty) slots[at(slot.bits)] = slot;
    }
  }
  slots[at(bits)] = {.bits = bits, .address_class = address_class};
  ++size;
}

BlockTable::Bits BlockTable::bits_of(const IpAddress& address) {
  Bits bits;
  const std::size_t length = address.bits() / 8;
  for (std::size_t i = 0; i < length; ++i) {
    std::uint64_t& word = i < 8 ? bits.high : bits.low;
    word |= static_cast<std::uint64_t>(address.bytes()[i]) << (56 - 8 * (i % 8));
  }
  return bits;
}

BlockTable::Level& BlockTable::level_of(const Cidr& cidr) {
  auto& levels = levels_[cidr.address().is_v4() ? 0 : 1];
  const unsigned prefix = cidr.prefix();
  const auto at = std::find_if(levels.begin(), levels.end(), [prefix](const Level& level) { return level.prefix <= prefix; });
  if (at != levels.end() && at->prefix == prefix) return *at;
  const auto ones = [](unsigned count) { return count == 0 ? 0 : ~std::uint64_t{0} << (64 - count); };
  return *levels.insert(at, Level{.prefix = prefix, .mask = {ones(std::min(prefix, 64U)), ones(std::max(prefix, 64U) - 64)}, .slots = {}});
}

std::uint32_t BlockTable::find(const IpAddress& address) const {
  const Bits bits = bits_of(address);
  for (const Level& level : levels_[address.is_v4() ? 0 : 1]) {
    const Slot& slot = level.slots[level.at({bits.high & level.mask.high, bits.low & level.mask.low})];
    if (slot.address_class != empty) return slot.address_class;
  }
  return 0;
}

}  // namespace postern
