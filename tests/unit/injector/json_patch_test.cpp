#include "control/json_patch.hpp"

#include <gtest/gtest.h>

#include <random>

#include "tests/unit/injector/injector_kit.hpp"

namespace postern {
namespace {

Node read(std::string_view json) {
  auto document = parse_json(json, "t");
  EXPECT_TRUE(document) << document.error().text();
  return std::move(document->root);
}

std::string patch_of(std::string_view before, std::string_view after) { return json_patch_text(json_patch(read(before), read(after))); }

TEST(JsonPatch, IsSmall) {
  EXPECT_EQ(patch_of(R"({"a":1})", R"({"a":1})"), "[]");
  EXPECT_EQ(patch_of(R"({"a":1,"b":2})", R"({"a":2,"c":3})"),
            R"([{"op":"remove","path":"/b"},{"op":"replace","path":"/a","value":2},{"op":"add","path":"/c","value":3}])");
  EXPECT_EQ(patch_of(R"({"l":[{"name":"x","v":1}]})", R"({"l":[{"name":"new"},{"name":"x","v":2}]})"),
            R"([{"op":"add","path":"/l/0","value":{"name":"new"}},{"op":"replace","path":"/l/1/v","value":2}])");
  EXPECT_EQ(patch_of(R"({"l":["x"]})", R"({"l":["x","y"]})"), R"([{"op":"add","path":"/l/-","value":"y"}])");
}

// RFC 6901 section 3.
TEST(JsonPatch, PathsAreEscaped) { EXPECT_EQ(patch_of(R"({})", R"({"a/b~c":1})"), R"([{"op":"add","path":"/a~1b~0c","value":1}])"); }

Node random_node(std::mt19937& random, int depth) {
  switch (depth > 3 ? random() % 2 : random() % 4) {
    case 0: return make_integer(random() % 3);
    case 1: return make_text(std::string(1, static_cast<char>('a' + random() % 3)));
    case 2: {
      Node list = make_list({});
      for (auto i = random() % 4; i > 0; --i) list.items.push_back(random_node(random, depth + 1));
      return list;
    }
    default: break;
  }
  Node object = make_object({});
  for (const char* key : {"name", "b/c", "~d"}) {
    if (random() % 2 == 0) field_of(object, key) = random_node(random, depth + 1);
  }
  return object;
}

TEST(JsonPatch, MakesTheOneOfTheOther) {
  std::mt19937 random(7);
  for (int i = 0; i < 5000; ++i) {
    const Node before = make_object({{"root", random_node(random, 0)}});
    const Node after = make_object({{"root", random_node(random, 0)}});
    const auto patch = json_patch(before, after);
    ASSERT_TRUE(same_value(applied(before, patch), after)) << json_text(before) << "\n"
                                                           << json_text(after) << "\n"
                                                           << json_patch_text(patch);
  }
}

}  // namespace
}  // namespace postern
