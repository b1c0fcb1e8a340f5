// PortMap: disjoint port intervals, each with the rule that wins there.
#pragma once

#include <cstdint>
#include <vector>

#include "base/ip.hpp"

namespace postern {

// The position of a (rule, peer) in its direction's order; the lowest that matches decides.
using RuleRank = std::uint32_t;
inline constexpr RuleRank no_rank = 0xffffffff;

struct PortInterval {
  std::uint16_t first = 0;
  std::uint16_t last = 0xffff;  // inclusive
  RuleRank rank = no_rank;

  bool operator==(const PortInterval&) const = default;
};

class PortMap {
 public:
  PortMap() = default;
  // Takes intervals that may overlap; where they do, the lowest rank wins.
  explicit PortMap(const std::vector<PortInterval>& intervals);

  // The winning rank at this port, or no_rank.
  RuleRank find(Port port) const;
  const std::vector<PortInterval>& intervals() const { return intervals_; }

 private:
  std::vector<PortInterval> intervals_;  // ascending, disjoint, neighbours of one rank joined
};

}  // namespace postern
