#include "authz/port_map.hpp"

#include <gtest/gtest.h>

#include <random>

namespace postern {
namespace {

TEST(PortMap, AnEmptyMapHasNoWinner) { EXPECT_EQ(PortMap().find(Port{80}), no_rank); }

TEST(PortMap, TheLowestRankWinsWhereIntervalsOverlap) {
  const PortMap map({{100, 200, 5}, {150, 160, 2}, {150, 155, 7}, {0, 0xffff, 9}});
  EXPECT_EQ(map.find(Port{0}), 9U);
  EXPECT_EQ(map.find(Port{99}), 9U);
  EXPECT_EQ(map.find(Port{100}), 5U);
  EXPECT_EQ(map.find(Port{150}), 2U);
  EXPECT_EQ(map.find(Port{160}), 2U);
  EXPECT_EQ(map.find(Port{161}), 5U);
  EXPECT_EQ(map.find(Port{201}), 9U);
  EXPECT_EQ(map.find(Port{65535}), 9U);
}

TEST(PortMap, NeighboursOfOneRankAreJoined) {
  const PortMap map({{10, 19, 1}, {20, 29, 1}, {15, 25, 1}, {31, 31, 1}});
  EXPECT_EQ(map.intervals(), (std::vector<PortInterval>{{10, 29, 1}, {31, 31, 1}}));
}

TEST(PortMap, AgreesWithALinearSearch) {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    std::vector<PortInterval> intervals;
    for (RuleRank rank = 0; rank < 12; ++rank) {
      // Near the upper end, where an end one too far would wrap around.
      const auto first = static_cast<std::uint16_t>(65500 + random() % 36);
      const auto last = static_cast<std::uint16_t>(first + random() % (65536U - first));
      intervals.push_back({first, last, static_cast<RuleRank>(random() % 8)});
    }
    const PortMap map(intervals);
    for (std::uint32_t port = 65490; port <= 65535; ++port) {
      RuleRank expected = no_rank;
      for (const auto& interval : intervals) {
        if (interval.first <= port && port <= interval.last) expected = std::min(expected, interval.rank);
      }
      EXPECT_EQ(map.find(Port{static_cast<std::uint16_t>(port)}), expected) << port;
    }
  }
}

}  // namespace
}  // namespace postern
