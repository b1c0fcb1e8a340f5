#include "base/document_writer.hpp"

#include <gtest/gtest.h>

#include <random>

namespace postern {
namespace {

Node read(std::string_view yaml) {
  auto documents = parse_yaml(yaml, "t");
  EXPECT_TRUE(documents) << documents.error().text() << "\n" << yaml;
  if (!documents || documents->size() != 1) return {};
  return std::move(documents->front().root);
}

TEST(DocumentWriter, WritesAsKubectlDoes) {
  const Node node = read(
      "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {}}\nspec:\n  containers: [{name: b, args: [-c, 'x: y', '80', no]}]\n");
  EXPECT_EQ(yaml_text(node), R"(apiVersion: v1
kind: Pod
metadata:
  name: a
  annotations: {}
spec:
  containers:
  - name: b
    args:
    - "-c"
    - "x: y"
    - "80"
    - false
)");
  EXPECT_EQ(json_text(node), R"({"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","annotations":{}},)"
                             R"("spec":{"containers":[{"name":"b","args":["-c","x: y","80",false]}]}})");
}

TEST(DocumentWriter, KeepsScriptsReadable) {
  const Node node = read("command: [sh, -c, \"set -e\\n\\nif true; then\\n  exec x\\nfi\\n\"]\n");
  EXPECT_EQ(yaml_text(node), "command:\n- sh\n- \"-c\"\n- |\n  set -e\n\n  if true; then\n    exec x\n  fi\n");
  EXPECT_TRUE(same_value(read(yaml_text(node)), node));
}

// Every string that could be taken for something else comes back as the same string.
TEST(DocumentWriter, StringsStayStrings) {
  for (const char* text : {"",       "null", "~",    "true",     "Yes",        "n",     "1",     "0x1F",
                           "1_000",  "1e3",  ".5",   "12:30:45", "2001-01-01", "-",     "- a",   "a: b",
                           "a:",     "# a",  "a #b", "'a'",      "\"a\"",      "{a}",   "[a]",   "*a",
                           "&a",     "!a",   "%a",   "@a",       "`a",         "|",     ">",     " a",
                           "a ",     "a\nb", "a\n",  "a\n\n",    "\na",        " a\nb", "a \nb", "\t",
                           "a\tb",   "<<",   "=",    "a\x01",    "\xc3\xa9",   "é\nb",  "?",     "? a",
                           "1m",     "10Mi", "0o17", "1.2.3.4",  "fd00::1",    "$(A)",  "a,b",   "http://x:80/y?z=1#f",
                           "Always", ".inf", "0b1"}) {
    Node node = make_object({{"key", make_text(text)}, {text, make_list({make_text(text), make_list({make_text(text)})})}});
    const Node back = read(yaml_text(node));
    EXPECT_TRUE(same_value(back, node)) << "'" << text << "' became\n" << yaml_text(node);
    const auto json = parse_json(json_text(node), "t");
    ASSERT_TRUE(json) << json.error().text();
    EXPECT_TRUE(same_value(json->root, node)) << text;
  }
}

Node random_node(std::mt19937& random, int depth) {
  constexpr std::string_view kSigns = "ab1 :#-\n\"'{[,&*!|>%@`?~.\t_0xeE+=";
  const auto text = [&] {
    std::string out;
    for (auto i = random() % 12; i > 0; --i) out += kSigns[random() % kSigns.size()];
    return out;
  };
  switch (depth > 3 ? random() % 4 : random() % 6) {
    case 0: return make_text(text());
    case 1: return make_integer(static_cast<std::int32_t>(random()));
    case 2: return make_boolean(random() % 2 == 0);
    case 3: return {};
    case 4: {
      Node list = make_list({});
      for (auto i = random() % 4; i > 0; --i) list.items.push_back(random_node(random, depth + 1));
      return list;
    }
    default: break;
  }
  Node object = make_object({});
  for (auto i = random() % 4; i > 0; --i) field_of(object, text()) = random_node(random, depth + 1);
  return object;
}

TEST(DocumentWriter, EveryTreeComesBack) {
  std::mt19937 random(1);
  for (int i = 0; i < 3000; ++i) {
    const Node node = make_object({{"root", random_node(random, 0)}});
    const auto yaml = parse_yaml(yaml_text(node), "t");
    ASSERT_TRUE(yaml) << yaml.error().text() << "\n" << yaml_text(node) << "\n" << json_text(node);
    ASSERT_TRUE(same_value(yaml->front().root, node)) << yaml_text(node) << "\n" << json_text(node);
    const auto json = parse_json(json_text(node), "t");
    ASSERT_TRUE(json) << json.error().text();
    ASSERT_TRUE(same_value(json->root, node));
  }
}

TEST(DocumentWriter, NumbersAreJson) {
  EXPECT_EQ(json_text(read("[0x10, 1.50, .5, 80.0, 1e40, 18446744073709551615]")), "[16,1.5,0.5,80,1e+40,18446744073709551615]");
}

}  // namespace
}  // namespace postern
