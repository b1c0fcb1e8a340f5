#include "cli/json_text.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace postern::cli {
namespace {

Node parsed(std::string_view json) {
  auto document = parse_json(json, "test");
  EXPECT_TRUE(document) << json;
  return document ? document->root : Node{};
}

TEST(Indented, KeepsTheOrderAndComesBackTheSame) {
  const std::string text = indented(parsed(R"({"b":[1,{"a":null}],"a":"x\ny","e":[],"n":-1.5})"));
  EXPECT_EQ(text, "{\n  \"b\": [\n    1,\n    {\n      \"a\": null\n    }\n  ],\n  \"a\": \"x\\ny\",\n  \"e\": [],\n  \"n\": -1.5\n}\n");
  EXPECT_EQ(indented(parsed(text)), text);
}

TEST(Tabulated, ListOfObjectsHasAColumnPerField) {
  EXPECT_EQ(tabulated(parsed(R"([{"id":1,"peer":"web-0"},{"id":12,"way":["in"],"peer":null}])")),
            "id  peer   way\n"
            "1   web-0  -\n"
            "12  -      [\"in\"]\n");
}

TEST(Tabulated, ObjectHasItsFieldsThenItsTables) {
  EXPECT_EQ(tabulated(parsed(R"({"rules":[{"port":80}],"generation":7,"note":""})")), "generation: 7\nnote: -\n\nrules:\nport\n80\n");
}

TEST(Tabulated, NothingIsSaid) { EXPECT_EQ(tabulated(parsed("[]")), "none\n"); }

TEST(Tabulated, ControlCharactersStayEscaped) {
  const std::string text = tabulated(parsed(R"([{"pe\ner":"a\u001b[2Jb"}])"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos);
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 2);
}

}  // namespace
}  // namespace postern::cli
