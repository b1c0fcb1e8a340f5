#include "authz/block_table.hpp"

#include <algorithm>
#include <functional>
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
    class_of_.emplace(cidr, known->second);
    prefixes_[cidr.address().is_v4() ? 0 : 1].push_back(cidr.prefix());
    outer.emplace_back(cidr, std::move(members));
  }
  for (auto& prefixes : prefixes_) {
    std::sort(prefixes.begin(), prefixes.end(), std::greater<>());
    prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
  }
}

std::uint32_t BlockTable::find(const IpAddress& address) const {
  for (const unsigned prefix : prefixes_[address.is_v4() ? 0 : 1]) {
    const auto node = class_of_.find(Cidr(address, prefix));
    if (node != class_of_.end()) return node->second;
  }
  return 0;
}

}  // namespace postern
