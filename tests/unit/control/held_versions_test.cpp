#include "control/held_versions.hpp"

#include <gtest/gtest.h>

#include "control/resource_hash.hpp"

namespace postern {
namespace {

const std::string one = content_hash("one");
const std::string two = content_hash("two");

TEST(HeldVersions, KnowsNamesAndHashes) {
  const HeldVersions held(std::map<std::string, std::string>{{"allow-list", one}, {"pod/a/b", two}});
  EXPECT_EQ(held.size(), 2U);
  EXPECT_TRUE(held.contains("pod/a/b"));
  EXPECT_FALSE(held.contains("pod/a"));
  EXPECT_FALSE(held.contains("pod/a/b/"));
  EXPECT_TRUE(held.has("allow-list", one));
  EXPECT_FALSE(held.has("allow-list", two));
  EXPECT_FALSE(held.has("settings", one));
}

TEST(HeldVersions, FollowsAcknowledgements) {
  HeldVersions held;
  EXPECT_TRUE(held.empty());
  std::map<std::string, std::string> expected;
  // Names come, change and go, in every position.
  for (int round = 0; round < 200; ++round) {
    std::map<std::string, std::string> put;
    std::vector<std::string> removed;
    for (int i = 0; i < 10; ++i) {
      const std::string name = "pod/ns/" + std::to_string((round * 31 + i * 17) % 97);
      if ((round + i) % 3 == 0) {
        removed.push_back(name);
      } else {
        put[name] = content_hash(name + std::to_string(round));
      }
    }
    for (const std::string& name : removed) expected.erase(name);
    for (const auto& [name, hash] : put) expected[name] = hash;
    held.update(put, removed);
    ASSERT_EQ(held.size(), expected.size());
    std::size_t at = 0;
    for (const auto& [name, hash] : expected) {
      ASSERT_EQ(held.name_at(at), name);
      ASSERT_TRUE(held.has_hash_at(at, hash));
      ASSERT_TRUE(held.has(name, hash));
      ++at;
    }
  }
}

// A sidecar may say it has whatever it likes.
TEST(HeldVersions, AStrangeHashEqualsNone) {
  const std::string zeros(32, '0');
  for (const std::string& strange : {std::string(), std::string("abc"), std::string(32, 'x'), zeros, one + one}) {
    const HeldVersions held(std::map<std::string, std::string>{{"a", strange}});
    EXPECT_TRUE(held.contains("a"));
    EXPECT_FALSE(held.has("a", strange)) << strange;
    EXPECT_FALSE(held.has("a", one));
  }
}

}  // namespace
}  // namespace postern
