#include "base/json_writer.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "base/document.hpp"

namespace postern {
namespace {

TEST(JsonWriter, SeparatesWhatStandsBesideEachOther) {
  JsonWriter json;
  json.begin_object().field("a", 1).key("b").begin_array().value("x").begin_object().end_object().begin_array().end_array().value(false);
  json.end_array().key("c").begin_object().field("d", "e").end_object().field("f", true).end_object();
  EXPECT_EQ(json.take(), R"({"a":1,"b":["x",{},[],false],"c":{"d":"e"},"f":true})");
}

TEST(JsonWriter, LeavesDefaultsOut) {
  JsonWriter json;
  json.begin_object().flag("no", false).flag("yes", true).text("empty", "").text("full", "x").end_object();
  EXPECT_EQ(json.take(), R"({"yes":true,"full":"x"})");
}

TEST(JsonWriter, NumbersOfEverySizeAreExact) {
  JsonWriter json;
  json.begin_array().value(std::numeric_limits<std::uint64_t>::max()).value(std::numeric_limits<std::int64_t>::min());
  json.value(std::uint16_t{65535}).end_array();
  EXPECT_EQ(json.take(), "[18446744073709551615,-9223372036854775808,65535]");
}

TEST(JsonWriter, NoTextCanForgeAField) {
  std::string hostile("\",\"x\":1\\\n\0\x7f\xc2\x85\xe2\x80\xa8\xff", 17);
  JsonWriter json;
  json.begin_object().field(hostile, hostile).end_object();
  const auto document = parse_json(json.take(), "t");
  ASSERT_TRUE(document) << document.error().text();
  ASSERT_EQ(document->root.fields.size(), 1U);
  hostile.replace(16, 1, "\xef\xbf\xbd");  // what is no UTF-8
  EXPECT_EQ(document->root.fields[0].first, hostile);
  EXPECT_EQ(document->root.fields[0].second.scalar, hostile);
}

}  // namespace
}  // namespace postern
