#include "authz/block_table.hpp"

#include <gtest/gtest.h>

#include <random>
#include <set>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

std::vector<std::uint32_t> blocks_at(const BlockTable& table, const IpAddress& address) { return table.classes()[table.find(address)]; }

TEST(BlockTable, NoBlocksContainNothing) {
  EXPECT_EQ(BlockTable().find(ip("10.0.0.1")), 0U);
  EXPECT_TRUE(blocks_at(BlockTable(), ip("fd00::1")).empty());
}

TEST(BlockTable, FamiliesDoNotMix) {
  const BlockTable table({{cidr("0.0.0.0/0"), {}}, {cidr("::/0"), {}}});
  EXPECT_EQ(blocks_at(table, ip("0.0.0.0")), (std::vector<std::uint32_t>{0}));
  EXPECT_EQ(blocks_at(table, ip("::1")), (std::vector<std::uint32_t>{1}));
  EXPECT_EQ(blocks_at(table, ip("::ffff:10.0.0.1")), (std::vector<std::uint32_t>{0}));
}

TEST(BlockTable, NestedBlocksAndExcepts) {
  const BlockTable table(
      {{cidr("10.0.0.0/8"), {cidr("10.1.0.0/16"), cidr("10.1.2.0/24")}}, {cidr("10.1.0.0/16"), {}}, {cidr("10.1.2.3/32"), {}}});
  EXPECT_EQ(blocks_at(table, ip("10.9.0.1")), (std::vector<std::uint32_t>{0}));
  EXPECT_EQ(blocks_at(table, ip("10.1.0.1")), (std::vector<std::uint32_t>{1}));
  EXPECT_EQ(blocks_at(table, ip("10.1.2.1")), (std::vector<std::uint32_t>{1}));
  EXPECT_EQ(blocks_at(table, ip("10.1.2.3")), (std::vector<std::uint32_t>{1, 2}));
  EXPECT_TRUE(blocks_at(table, ip("11.0.0.1")).empty());
}

TEST(BlockTable, AgreesWithALinearSearch) {
  std::mt19937 random(2);
  const auto random_address = [&] {
    return IpAddress::v4(
        {10, static_cast<std::uint8_t>(random() % 2), static_cast<std::uint8_t>(random() % 4), static_cast<std::uint8_t>(random())});
  };
  for (int round = 0; round < 40; ++round) {
    std::set<IpBlock> distinct;
    while (distinct.size() < 12) {
      IpBlock block{.cidr = Cidr(random_address(), static_cast<unsigned>(random() % 33)), .except = {}};
      for (unsigned i = 0; i < random() % 4 && block.cidr.prefix() < 32; ++i) {
        const Cidr except(random_address(), block.cidr.prefix() + 1 + static_cast<unsigned>(random() % (32 - block.cidr.prefix())));
        if (block.cidr.contains(except)) block.except.push_back(except);
      }
      distinct.insert(block);
    }
    const std::vector<IpBlock> blocks(distinct.begin(), distinct.end());
    const BlockTable table(blocks);
    for (int i = 0; i < 500; ++i) {
      const IpAddress address = random_address();
      std::vector<std::uint32_t> expected;
      for (std::uint32_t b = 0; b < blocks.size(); ++b) {
        bool inside = blocks[b].cidr.contains(address);
        for (const Cidr& except : blocks[b].except) inside = inside && !except.contains(address);
        if (inside) expected.push_back(b);
      }
      ASSERT_EQ(blocks_at(table, address), expected) << address.text();
    }
  }
}

}  // namespace
}  // namespace postern::test
