#include "control/watch_decoder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/document.hpp"

namespace postern {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

const std::string kWatch =
    "{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"note\":\"}\\\"{\\\\\"}}}\n"
    "\n"
    "{ \"object\" : {\"metadata\":{\"name\":\"b\"}} , \"type\" : \"MODIFIED\" }\r\n"
    "{\"type\":\"DELETED\",\"object\":{}}\n"
    "{\"type\":\"BOOKMARK\",\"object\":{\"metadata\":{\"resourceVersion\":\"12\"}}}\n"
    "{\"type\":\"ERROR\",\"object\":{\"code\":410}}\n";

std::vector<std::string> types_and_objects(const std::vector<WatchLine>& lines) {
  std::vector<std::string> out;
  for (const WatchLine& line : lines) out.push_back(std::to_string(static_cast<int>(line.type)) + line.object);
  return out;
}

TEST(WatchDecoder, GivesTheSameEventsHoweverTheBytesAreSplit) {
  WatchDecoder whole;
  std::vector<WatchLine> expected;
  ASSERT_TRUE(whole.feed(kWatch, expected));
  ASSERT_EQ(expected.size(), 5U);
  EXPECT_EQ(expected[0].object, "{\"metadata\":{\"name\":\"a\",\"note\":\"}\\\"{\\\\\"}}");
  EXPECT_EQ(expected[1].type, WatchLine::Type::modified);
  EXPECT_EQ(expected[4].type, WatchLine::Type::error);
  for (std::size_t at = 0; at <= kWatch.size(); ++at) {
    WatchDecoder decoder;
    std::vector<WatchLine> lines;
    ASSERT_TRUE(decoder.feed(std::string_view(kWatch).substr(0, at), lines));
    EXPECT_EQ(decoder.at_boundary(), at == 0 || kWatch[at - 1] == '\n') << at;
    ASSERT_TRUE(decoder.feed(std::string_view(kWatch).substr(at), lines));
    EXPECT_EQ(types_and_objects(lines), types_and_objects(expected)) << at;
  }
}

TEST(WatchDecoder, RefusesALineThatIsTooLong) {
  WatchDecoder decoder(100);
  std::vector<WatchLine> lines;
  EXPECT_TRUE(decoder.feed(std::string(100, ' '), lines));
  const auto result = decoder.feed("x", lines);
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().message, HasSubstr("longer than 100 bytes"));
}

TEST(WatchDecoder, RefusesWhatIsNoEvent) {
  for (const char* line :
       {"[]\n", "{}\n", "{\"type\":\"ADDED\"}\n", "{\"object\":{}}\n", "{\"type\":\"NEW\",\"object\":{}}\n",
        "{\"type\":\"ADDED\",\"type\":\"ADDED\",\"object\":{}}\n", "{\"type\":\"ADDED\",\"object\":{},\"more\":1}\n",
        "{\"type\":\"ADDED\",\"object\":{\n", "{\"type\":\"ADDED\",\"object\":{}} x\n", "{\"type\n", "{\"type\":\n", "nonsense\n"}) {
    WatchDecoder decoder;
    std::vector<WatchLine> lines;
    EXPECT_FALSE(decoder.feed(line, lines)) << line;
    EXPECT_TRUE(lines.empty()) << line;
  }
}

struct Listed {
  std::vector<std::string> items;
  Result<ListDecoder::End> end = Error{};
};

Listed decode_list(std::string_view first, std::string_view second = {}, std::size_t item_bytes = object_bytes_max) {
  Listed out;
  ListDecoder decoder(
      [&](std::string_view item) {
        out.items.emplace_back(item);
        return Result<void>();
      },
      item_bytes);
  for (const std::string_view part : {first, second}) {
    const auto fed = decoder.feed(part);
    if (!fed) {
      out.end = fed.error();
      return out;
    }
  }
  out.end = decoder.finish();
  return out;
}

const std::string kList =
    R"({"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"77","continue":"abc","items":["no"]}, "items" : [ {"a":"]},\"{","b":[{}]} ,)"
    R"({"metadata":{"name":"two"}}],"extra":{"items":[{"x":1}]}} )";

TEST(ListDecoder, GivesTheSameItemsHoweverTheBytesAreSplit) {
  for (std::size_t at = 0; at <= kList.size(); ++at) {
    const Listed listed = decode_list(std::string_view(kList).substr(0, at), std::string_view(kList).substr(at));
    ASSERT_TRUE(listed.end) << at << " " << listed.end.error().text();
    EXPECT_EQ(listed.end->version, 77U);
    EXPECT_EQ(listed.end->continue_token, "abc");
    EXPECT_THAT(listed.items, ElementsAre(R"({"a":"]},\"{","b":[{}]})", R"({"metadata":{"name":"two"}})")) << at;
  }
}

TEST(ListDecoder, NeverTakesABeginningForTheWhole) {
  const std::size_t complete = kList.find_last_of('}') + 1;
  for (std::size_t at = 0; at < complete; ++at) EXPECT_FALSE(decode_list(std::string_view(kList).substr(0, at)).end) << at;
}

TEST(ListDecoder, ReadsAnEmptyList) {
  for (const char* text : {R"({"items":[],"metadata":{"resourceVersion":"5"}})", R"({"metadata":{"resourceVersion":"5"},"items":null})"}) {
    const Listed listed = decode_list(text);
    ASSERT_TRUE(listed.end) << listed.end.error().text();
    EXPECT_EQ(listed.end->version, 5U);
    EXPECT_TRUE(listed.items.empty());
  }
}

TEST(ListDecoder, RefusesWhatIsNoList) {
  for (const char* text :
       {"", "[]", "{}", R"({"items":[]})", R"({"items":[],"metadata":{"resourceVersion":"x"}})", R"({"metadata":{"resourceVersion":"5"}})",
        R"({"items":[1],"metadata":{"resourceVersion":"5"}})", R"({"items":[{}{}],"metadata":{"resourceVersion":"5"}})",
        R"({"items":[{},],"metadata":{"resourceVersion":"5"}})", R"({"items":[,{}],"metadata":{"resourceVersion":"5"}})",
        R"({"items":[],"items":[],"metadata":{"resourceVersion":"5"}})", R"({"\u0069tems":[{}],"metadata":{"resourceVersion":"5"}})",
        R"({"items":{},"metadata":{"resourceVersion":"5"}})", R"({"items":[],"metadata":{"resourceVersion":"5"}} x)"}) {
    EXPECT_FALSE(decode_list(text).end) << text;
  }
}

TEST(ListDecoder, RefusesAnItemThatIsTooLong) {
  const std::string item = "{\"a\":\"" + std::string(100, 'x') + "\"}";
  const std::string list = "{\"metadata\":{\"resourceVersion\":\"5\"},\"items\":[" + item + "]}";
  EXPECT_TRUE(decode_list(list, {}, item.size()).end);
  EXPECT_FALSE(decode_list(list, {}, item.size() - 8).end);
}

TEST(ListDecoder, EndsWhereItsItemIsRefused) {
  ListDecoder decoder([](std::string_view) { return Result<void>(Error{"no", {}}); });
  const auto fed = decoder.feed(kList);
  ASSERT_FALSE(fed);
  EXPECT_EQ(fed.error().message, "no");
}

TEST(DecodeStatus, ReadsWhatItCan) {
  const ApiStatus status = decode_status(R"({"kind":"Status","code":410,"reason":"Expired","message":"too old"})");
  EXPECT_EQ(status.code, 410U);
  EXPECT_EQ(status.reason, "Expired");
  EXPECT_EQ(status.message, "too old");
  EXPECT_EQ(decode_status("not found").code, 0U);
  EXPECT_EQ(decode_status(R"({"code":"410","message":[]})").code, 0U);
}

}  // namespace
}  // namespace postern
