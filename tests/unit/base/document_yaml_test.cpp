#include <gtest/gtest.h>

#include "base/document.hpp"

namespace postern {
namespace {

std::string failure(std::string_view text, const DocumentLimits& limits = {}) {
  const auto documents = parse_yaml(text, "f.yaml", limits);
  return documents ? "parsed" : documents.error().text();
}

Node one(std::string_view text) {
  auto documents = parse_yaml(text, "f.yaml");
  if (!documents || documents->size() != 1) {
    ADD_FAILURE() << (documents ? "no single document" : documents.error().text());
    return {};
  }
  return (*documents)[0].root;
}

Node value(const std::string& scalar) {
  const Node root = one("v: " + scalar + "\n");
  const Node* v = root.find("v");
  return v == nullptr ? Node{} : *v;
}

TEST(ParseYaml, BuildsATreeWithPositions) {
  const Node root = one("# comment\na:\n  - 1\n  - {b: x}\nc: 'q'\n");
  ASSERT_TRUE(root.is(Node::Kind::mapping));
  EXPECT_EQ(root.fields[0].first, "a");
  EXPECT_EQ(root.fields[1].first, "c");
  const Node& item = root.find("a")->items[0];
  EXPECT_EQ(item.line, 3);
  EXPECT_EQ(item.column, 5);
  EXPECT_EQ(root.find("a")->items[1].find("b")->column, 9);
  EXPECT_EQ(root.find("c")->line, 5);
}

TEST(ParseYaml, TypesPlainScalarsAsTheKubernetesToolsDo) {
  for (const char* text : {"true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", "y", "Y"}) {
    EXPECT_TRUE(value(text).is(Node::Kind::boolean) && value(text).boolean) << text;
  }
  for (const char* text : {"false", "no", "No", "NO", "off", "OFF", "n", "N"}) {
    EXPECT_TRUE(value(text).is(Node::Kind::boolean) && !value(text).boolean) << text;
  }
  for (const char* text : {"", "~", "null", "Null", "NULL"}) EXPECT_TRUE(value(text).is(Node::Kind::null)) << text;
  const std::pair<const char*, std::int64_t> integers[] = {{"0", 0},
                                                           {"80", 80},
                                                           {"-1", -1},
                                                           {"+7", 7},
                                                           {"1_000", 1000},
                                                           {"0x1F", 31},
                                                           {"-0x10", -16},
                                                           {"0b101", 5},
                                                           {"010", 8},
                                                           {"0o17", 15},
                                                           {"09", 9},
                                                           {"80.0", 80},
                                                           {"8e1", 80},
                                                           {"1.", 1},
                                                           {"9223372036854775807", INT64_MAX},
                                                           {"-9223372036854775808", INT64_MIN}};
  for (const auto& [text, number] : integers) {
    EXPECT_TRUE(value(text).is(Node::Kind::integer)) << text;
    EXPECT_EQ(value(text).integer, number) << text;
    EXPECT_EQ(value(text).scalar, text);
  }
  for (const char* text : {"1.5", "-.5", ".5", "1e-3", "9223372036854775808", "0xFFFFFFFFFFFFFFFFFF"})
    EXPECT_TRUE(value(text).is(Node::Kind::number)) << text;
  for (const char* text : {"x", "yEs", "tRue", "nil", "1.2.3", "10.0.0.1", "1e", "0x", "0xg", "--1", "+", ".", "1__x", "2001-01-01", "_1",
                           "1 2", "1e999", "0b2"}) {
    EXPECT_TRUE(value(text).is(Node::Kind::string)) << text;
  }
}

TEST(ParseYaml, QuotedAndBlockScalarsAreStrings) {
  EXPECT_TRUE(value("'true'").is(Node::Kind::string));
  EXPECT_TRUE(value("\"80\"").is(Node::Kind::string));
  EXPECT_TRUE(value("\"\"").is(Node::Kind::string));
  EXPECT_EQ(value("|\n  a\n  b").scalar, "a\nb\n");
  EXPECT_TRUE(value("|\n  80").is(Node::Kind::string));
  EXPECT_EQ(value("\"a\\u00e9\"").scalar, "a\u00e9");
}

TEST(ParseYaml, HonoursCoreTagsOnly) {
  EXPECT_TRUE(value("!!str 80").is(Node::Kind::string));
  EXPECT_TRUE(value("!!str").is(Node::Kind::string));
  EXPECT_TRUE(value("! 80").is(Node::Kind::string));
  EXPECT_EQ(value("!!int \"80\"").integer, 80);
  EXPECT_TRUE(value("!!float 1").is(Node::Kind::integer));
  EXPECT_TRUE(value("!!map {}").is(Node::Kind::mapping));
  EXPECT_TRUE(value("!!seq []").is(Node::Kind::sequence));
  EXPECT_EQ(failure("a: !!int x"), "f.yaml:1:4: \"x\" is not what its tag says; expected an integer");
  for (const char* text :
       {"a: !!binary aGk=", "a: !local 1", "a: !!set {x}", "a: !!map [1]", "a: !!python/object:x {}", "a: !<tag:x.org:y> 1"}) {
    EXPECT_NE(failure(text).find("is not supported"), std::string::npos) << text << failure(text);
  }
}

TEST(ParseYaml, TurnsKeysIntoStringsAsTheKubernetesToolsDo) {
  EXPECT_NE(one("yes: 1\n").find("true"), nullptr);
  EXPECT_NE(one("0x10: 1\n").find("16"), nullptr);
  EXPECT_NE(one("'yes': 1\n").find("yes"), nullptr);
  for (const char* text : {"~: 1", "1.5: 1", "? [a]\n: 1", "? {a: b}\n: 1", ": 1"}) {
    EXPECT_NE(failure(text).find("a key must be a "), std::string::npos) << text << failure(text);
  }
}

TEST(ParseYaml, RefusesDuplicateAndMergeKeys) {
  EXPECT_EQ(failure("a: 1\nb: 2\na: 3\n"), "f.yaml:3:1: the key \"a\" stands twice in this mapping; remove one of them");
  EXPECT_NE(failure("{yes: 1, true: 2}").find("stands twice"), std::string::npos);
  EXPECT_EQ(failure("x: &x {a: 1}\ny:\n  <<: *x\n"), "f.yaml:3:3: merge keys (<<) are not supported; write the fields out");
  EXPECT_EQ(failure("'<<': 1\n"), "parsed");
}

TEST(ParseYaml, ExpandsAliases) {
  const Node root = one("a: &a [1, &s x]\nb: *a\nc: {*s : *s}\n");
  ASSERT_EQ(root.find("b")->items.size(), 2U);
  EXPECT_EQ(root.find("b")->items[1].scalar, "x");
  EXPECT_EQ(root.find("c")->find("x")->scalar, "x");
  const Node redefined = one("a: &a 1\nb: *a\nc: &a 2\nd: *a\n");
  EXPECT_EQ(redefined.find("b")->integer, 1);
  EXPECT_EQ(redefined.find("d")->integer, 2);
}

TEST(ParseYaml, RefusesAliasesThatCannotBe) {
  EXPECT_NE(failure("a: *nowhere\n"), "parsed");
  EXPECT_EQ(failure("a: &a [*a]\n"), "f.yaml:1:8: an alias to what it is part of");
  EXPECT_NE(failure("a: &a 1\n---\nb: *a\n"), "parsed") << "anchors end with their document";
}

TEST(ParseYaml, BoundsWhatAliasesExpandTo) {
  std::string laughs = "a0: &a0 [x]\n";
  for (int i = 1; i < 30; ++i) {
    const std::string previous = "*a" + std::to_string(i - 1);
    laughs += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" + previous + ", " + previous + "]\n";
  }
  EXPECT_NE(failure(laughs).find("counting what aliases repeat"), std::string::npos);
  std::string fat = "a: &a " + std::string(1000, 'x') + "\nb: [";
  for (int i = 0; i < 100; ++i) fat += "*a,";
  EXPECT_NE(failure(fat + "]\n", {.bytes = 50'000}).find("more than 50000 bytes, counting what aliases repeat"), std::string::npos);
  EXPECT_NE(failure("a: &a [1]\nb: &b [*a]\nc: [*b]\n", {.depth = 3}).find("nested deeper than 3"), std::string::npos);
}

TEST(ParseYaml, HoldsToItsLimits) {
  EXPECT_NE(failure("[[[1]]]", {.depth = 2}).find("nested deeper than 2"), std::string::npos);
  EXPECT_EQ(failure("[[1]]", {.depth = 2}), "parsed");
  EXPECT_NE(failure("a: 1\nb: 2\n", {.nodes = 4}).find("more than 4 values"), std::string::npos);
  EXPECT_EQ(failure("a: 1\nb: 2\n", {.nodes = 5}), "parsed");
  EXPECT_NE(failure("a\n---\nb\n---\nc\n", {.nodes = 2}).find("more than 2 values"), std::string::npos) << "of the whole text";
  EXPECT_NE(failure("abcd", {.scalar_bytes = 3}).find("longer than 3 bytes"), std::string::npos);
  EXPECT_NE(failure("a: 1\n", {.bytes = 4}).find("longer than 4 bytes"), std::string::npos);
  EXPECT_NE(failure("a\n---\nb\n---\nc\n", {.documents = 2}).find("more than 2 documents"), std::string::npos);
  EXPECT_NE(failure(std::string(100'000, '[')), "parsed");
  EXPECT_NE(failure(std::string(100'000, '{')), "parsed");
  std::string dashes;
  for (int i = 0; i < 50'000; ++i) dashes += "- ";
  EXPECT_NE(failure(dashes), "parsed");
}

TEST(ParseYaml, ReadsSeveralDocumentsWithTheirLines) {
  const auto documents = parse_yaml("# head\n---\na: 1\n---\n# nothing\n---\n~\n--- # c\nb:\n  c: 2\n...\n---\n", "f.yaml");
  ASSERT_TRUE(documents) << documents.error().text();
  ASSERT_EQ(documents->size(), 2U);
  EXPECT_EQ((*documents)[0].root.find("a")->line, 3);
  EXPECT_EQ((*documents)[1].root.find("b")->find("c")->line, 10);
  EXPECT_EQ((*documents)[1].source, "f.yaml");
  EXPECT_EQ(parse_yaml("", "f").value().size(), 0U);
  EXPECT_EQ(parse_yaml("\n# only a comment", "f").value().size(), 0U);
  EXPECT_EQ(failure("a: 1\n---\nb: [\n").substr(0, 7), "f.yaml:");
}

TEST(ParseYaml, KeepsDashesThatSeparateNothing) {
  EXPECT_EQ(one("a: |\n  ---\n  b\n").find("a")->scalar, "---\nb\n");
  EXPECT_EQ(one("---a: 1\n").find("---a")->integer, 1);
}

TEST(ParseYaml, RefusesWhatIsNotYamlNamingThePlace) {
  for (const char* text : {"a: [1", "a: 1\n]", "a: b: c", "a: 'x", "\ta: 1\n\tb: 2", "a: 1\n b: 2", "{a: 1}}", "[1]\n[2]",
                           "a: 1\n...\nb: 2", "%YAML 3.0\n---\na: 1", "a: \"\\z\"", "@a", "a: \x01"}) {
    EXPECT_NE(failure(text), "parsed") << text;
  }
  EXPECT_EQ(failure("a: 1\nb: 'x").substr(0, 9), "f.yaml:2:");
  EXPECT_EQ(failure("a: 1\nb: \xff"), "f.yaml:2:4: not UTF-8");
  EXPECT_EQ(failure(std::string_view("a: \0", 4)), "f.yaml:1:4: a control character; only tabs and line ends are expected");
}

TEST(ParseYaml, TakesByteOrderMarksAndAllLineEnds) {
  EXPECT_EQ(one("\xEF\xBB\xBF"
                "a: 1\n")
                .find("a")
                ->integer,
            1);
  const auto documents = parse_yaml("a: 1\r\nb: 2\r\n---\r\nc: 3\r\n", "f.yaml");
  ASSERT_TRUE(documents);
  ASSERT_EQ(documents->size(), 2U);
  EXPECT_EQ((*documents)[1].root.find("c")->line, 4);
}

TEST(ParseYaml, ReadsJson) { EXPECT_EQ(one("{\"a\":{\"b\":[1,\"x\",null]}}").find("a")->find("b")->items[1].scalar, "x"); }

}  // namespace
}  // namespace postern
