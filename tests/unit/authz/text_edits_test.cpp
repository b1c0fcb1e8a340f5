#include "authz/text_edits.hpp"

#include <gtest/gtest.h>

#include <random>

namespace postern {
namespace {

// The edits, after it was seen that they make `to` of `from`.
std::vector<TextEdit> edits(const std::string& from, const std::string& to, std::size_t most = 64) {
  const auto found = edits_between(from, to, most);
  if (!found) {
    ADD_FAILURE() << "more than " << most;
    return {};
  }
  const auto made = edited(from, *found, from.size() + to.size());
  EXPECT_TRUE(made && *made == to) << from << " -> " << to;
  return *found;
}

std::string members(int first, int last, const std::string& but = "") {
  std::string text = "{\"members\":[";
  for (int i = first; i < last; ++i) {
    const std::string name = "\"shop/web-" + std::to_string(i) + "\"";
    if (name != but) text += (text.back() == '[' ? "" : ",") + name;
  }
  return text + "]}";
}

TEST(TextEdits, EqualTextsNeedNone) {
  EXPECT_TRUE(edits("", "").empty());
  EXPECT_TRUE(edits(members(0, 9), members(0, 9)).empty());
}

TEST(TextEdits, OneMemberOfMany) {
  const auto gone = edits(members(1000, 2000), members(1000, 2000, "\"shop/web-1500\""));
  ASSERT_EQ(gone.size(), 1U);
  EXPECT_EQ(gone[0].inserted, "");
  EXPECT_EQ(gone[0].removed, std::string("\"shop/web-1500\",").size());
  const auto come = edits(members(1000, 2000, "\"shop/web-1500\""), members(1000, 2000));
  ASSERT_EQ(come.size(), 1U);
  EXPECT_EQ(come[0].inserted, "\"shop/web-1500\",");
  EXPECT_EQ(come[0].removed, 0U);
}

TEST(TextEdits, ItemsAtBothEnds) {
  edits(members(0, 5), members(1, 5));
  edits(members(0, 5), members(0, 6));
  edits(members(0, 1), members(0, 0));
  edits(members(0, 0), members(0, 1));
  edits("", members(0, 3));
  edits(members(0, 3), "");
  edits(",", ",,");
}

TEST(TextEdits, TwoPlacesFarApartAreTwoEdits) {
  const auto moved = edits(members(1000, 2000, "\"shop/web-1900\""), members(1000, 2000, "\"shop/web-1100\""));
  ASSERT_EQ(moved.size(), 2U);
  EXPECT_GT(moved[0].at, moved[1].at) << "from the end, so that no edit moves the next one";
}

TEST(TextEdits, BeyondTheMostThereAreNone) {
  EXPECT_FALSE(edits_between(members(0, 100), members(200, 300), 64));
  EXPECT_TRUE(edits_between(members(0, 100), members(200, 300), 200));
}

TEST(TextEdits, AnyTwoTexts) {
  std::mt19937 random(7);  // NOLINT(cert-msc32-c,cert-msc51-cpp): the same ones each time
  const auto text = [&] {
    std::string out;
    for (auto n = random() % 30; n > 0; --n) out += ",abc"[random() % 4];
    return out;
  };
  for (int i = 0; i < 5000; ++i) edits(text(), text());
}

TEST(TextEdits, WhatDoesNotFitIsRefused) {
  EXPECT_FALSE(edited("abc", {{4, 0, "x"}}, 100));
  EXPECT_FALSE(edited("abc", {{1, 3, ""}}, 100));
  EXPECT_FALSE(edited("abc", {{~std::uint64_t{0}, 1, ""}}, 100));
  EXPECT_FALSE(edited("abc", {{1, ~std::uint64_t{0}, ""}}, 100));
  EXPECT_FALSE(edited("abc", {{0, 0, "xxxx"}}, 6));
  EXPECT_FALSE(edited("abc", {{0, 3, ""}, {1, 0, "x"}}, 6)) << "the first edit made it shorter";
  EXPECT_EQ(edited("abc", {{3, 0, "d"}, {0, 1, ""}}, 4).value(), "bcd");
}

}  // namespace
}  // namespace postern
