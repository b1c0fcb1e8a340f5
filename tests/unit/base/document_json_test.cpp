#include <gtest/gtest.h>

#include "base/document.hpp"

namespace postern {
namespace {

std::string failure(std::string_view text, const DocumentLimits& limits = {}) {
  const auto document = parse_json(text, "f.json", limits);
  return document ? "parsed" : document.error().text();
}

TEST(ParseJson, BuildsATreeWithPositions) {
  const auto document = parse_json(
      "{\n  \"a\": [1, -2.5, \"x\\u00e9\\n\"],\n  \"b\": {\"c\": true, \"d\": null}, \"big\": 9223372036854775808 }\n", "f.json");
  ASSERT_TRUE(document);
  const Node& root = document->root;
  ASSERT_TRUE(root.is(Node::Kind::mapping));
  const Node* a = root.find("a");
  ASSERT_NE(a, nullptr);
  ASSERT_EQ(a->items.size(), 3U);
  EXPECT_EQ(a->line, 2);
  EXPECT_EQ(a->column, 8);
  EXPECT_TRUE(a->items[0].is(Node::Kind::integer));
  EXPECT_EQ(a->items[0].integer, 1);
  EXPECT_EQ(a->items[0].column, 9);
  EXPECT_TRUE(a->items[1].is(Node::Kind::number));
  EXPECT_EQ(a->items[1].scalar, "-2.5");
  EXPECT_EQ(a->items[1].column, 12);
  EXPECT_EQ(a->items[2].scalar, "x\u00e9\n");
  EXPECT_TRUE(root.find("b")->find("c")->boolean);
  EXPECT_EQ(root.find("b")->find("c")->line, 3);
  EXPECT_TRUE(root.find("b")->find("d")->is(Node::Kind::null));
  EXPECT_TRUE(root.find("big")->is(Node::Kind::number)) << "past int64";
  EXPECT_EQ(root.find("big")->scalar, "9223372036854775808");
  EXPECT_EQ(root.find("missing"), nullptr);
}

TEST(ParseJson, TakesAnyValueAtTheTop) {
  EXPECT_EQ(parse_json("12", "f").value().root.integer, 12);
  EXPECT_EQ(parse_json(" \"s\" ", "f").value().root.scalar, "s");
  EXPECT_TRUE(parse_json("[]", "f").value().root.is(Node::Kind::sequence));
}

TEST(ParseJson, RefusesWhatIsNotJsonNamingThePlace) {
  for (const char* text :
       {"",    " ",  "{",      "[1,]", "{\"a\":1,}", "{a:1}",   "{'a':1}", "[1 2]",   "[01]",     "nul",   "[1]]",       "{} {}",
        "1 2", "1.", "\"\n\"", "\"a",  "// c\n1",    "[tru e]", "NaN",     "\"\\x\"", "\"\xff\"", "[1] x", "\"\\ud800\""}) {
    EXPECT_NE(failure(text), "parsed") << text;
  }
  EXPECT_EQ(failure("{\n  \"a\": tru\n}").substr(0, 9), "f.json:2:");
  EXPECT_EQ(failure("{}\n  {}"), "f.json:2:3: text after the end of the JSON value");
}

TEST(ParseJson, RefusesADuplicateKey) {
  EXPECT_EQ(failure("{\"a\":1,\n \"a\":2}"), "f.json:2:2: the key \"a\" stands twice in this mapping; remove one of them");
  EXPECT_EQ(failure("{\"a\":1,\"\\u0061\":2}").find("stands twice") != std::string::npos, true);
  EXPECT_EQ(failure("{\"a\":{\"a\":1},\"b\":{\"a\":1}}"), "parsed");
  std::string many = "{";
  for (int i = 0; i < 100; ++i) many += "\"k" + std::to_string(i) + "\":0,";
  EXPECT_EQ(failure(many + "\"last\":0}"), "parsed");
  EXPECT_NE(failure(many + "\"k50\":0}").find("\"k50\" stands twice"), std::string::npos);
}

TEST(ParseJson, HoldsToItsLimits) {
  EXPECT_NE(failure("[[[1]]]", {.depth = 2}).find("nested deeper than 2"), std::string::npos);
  EXPECT_EQ(failure("[[1]]", {.depth = 2}), "parsed");
  EXPECT_NE(failure("[1,2,3]", {.nodes = 3}).find("more than 3 values"), std::string::npos);
  EXPECT_EQ(failure("[1,2]", {.nodes = 3}), "parsed");
  EXPECT_NE(failure("\"abcd\"", {.scalar_bytes = 3}).find("longer than 3 bytes"), std::string::npos);
  EXPECT_NE(failure("[1,2]", {.bytes = 4}).find("longer than 4 bytes"), std::string::npos);
  EXPECT_NE(failure(std::string(100'000, '[')), "parsed");
}

}  // namespace
}  // namespace postern
