#include "control/kept_resource.hpp"

#include <gtest/gtest.h>

#include "control/resource_hash.hpp"

namespace postern {
namespace {

// The members of [0, size) but those that are left out.
ResourcePtr made(int size, const std::vector<int>& without = {}) {
  std::string body = "{\"members\":[";
  for (int i = 0; i < size; ++i) {
    if (std::find(without.begin(), without.end(), i) != without.end()) continue;
    body += (body.back() == '[' ? "\"" : ",\"") + std::string("shop/web-") + std::to_string(1000 + i) + "\"";
  }
  return make_resource("peer-set/webs", body + "]}");
}

struct KeptResourceTest : testing::Test {
  ResourcePtr keep(ResourcePtr resource) {
    kept.outdated();
    EXPECT_EQ(kept.current(), nullptr);
    return kept.keep(std::move(resource));
  }
  // Whether there are edits from that version, which come to the current one.
  bool leads(const ResourcePtr& from) {
    const auto delta = kept.since(from->hash);
    if (!delta) return false;
    EXPECT_EQ(delta->name, "peer-set/webs");
    EXPECT_EQ(delta->base, from->hash);
    EXPECT_EQ(delta->hash, kept.current()->hash);
    const auto body = edited_body(from->body, *delta);
    EXPECT_TRUE(body && *body == kept.current()->body);
    std::size_t bytes = 0;
    for (const TextEdit& edit : delta->edits) bytes += edit.inserted.size();
    EXPECT_LE(bytes, kept.current()->body.size() / 2);
    return true;
  }
  KeptResource kept;
};

TEST_F(KeptResourceTest, OneMemberIsAnEdit) {
  const auto first = keep(made(1000));
  EXPECT_FALSE(kept.since(first->hash)) << "there is nothing to be edited";
  const auto second = keep(made(1000, {500}));
  EXPECT_TRUE(leads(first));
  EXPECT_EQ(kept.since(first->hash)->edits.size(), 1U);
  EXPECT_FALSE(kept.since(content_hash("another")));
  EXPECT_FALSE(kept.since(""));
}

TEST_F(KeptResourceTest, WhoSkippedVersionsGetsTheNewest) {
  std::vector<ResourcePtr> versions{keep(made(1000))};
  for (int i = 0; i < 10; ++i) versions.push_back(keep(made(1000, {i, 500 + i})));
  versions.pop_back();
  for (const ResourcePtr& version : versions) EXPECT_TRUE(leads(version));
}

TEST_F(KeptResourceTest, AVersionThatComesBackIsTheLatestOfThese) {
  const auto a = keep(made(1000));
  const auto b = keep(made(1000, {1}));
  keep(made(1000));
  keep(made(1000, {1}));
  keep(made(1000, {500}));
  EXPECT_TRUE(leads(a));
  EXPECT_TRUE(leads(b));
  EXPECT_EQ(kept.since(b->hash)->edits.size(), 2U) << "not those of all the versions between";
  keep(made(1000, {500}));
  EXPECT_TRUE(leads(b)) << "what was made anew and is the same is no step";
}

TEST_F(KeptResourceTest, WhatIsSmallIsSentWhole) {
  const auto first = keep(made(20));
  keep(made(20, {3}));
  EXPECT_FALSE(leads(first));
}

TEST_F(KeptResourceTest, WhatDiffersMuchIsSentWhole) {
  const auto first = keep(made(200));
  std::vector<int> half;
  for (int i = 0; i < 200; i += 2) half.push_back(i);
  const auto second = keep(made(200, half));
  keep(made(200));
  EXPECT_FALSE(leads(second)) << "a hundred insertions are as long as half of it";
  EXPECT_FALSE(leads(first)) << "nothing leads past what is not known";
}

TEST_F(KeptResourceTest, HistoryIsBounded) {
  std::vector<ResourcePtr> versions;
  for (int i = 0; i < 2000; ++i) versions.push_back(keep(made(1000, {i % 1000})));
  std::size_t known = 0;
  for (std::size_t i = 1000; i < versions.size(); ++i) known += leads(versions[i]) ? 1U : 0U;
  EXPECT_GT(known, 50U);
  EXPECT_LT(known, 500U);
  EXPECT_TRUE(leads(versions[versions.size() - 2]));
}

}  // namespace
}  // namespace postern
