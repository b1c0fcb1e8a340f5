#include "base/log.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <array>
#include <string>

#include "base/document.hpp"

namespace postern {
namespace {

std::string json_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

TEST(AppendJsonString, KeepsPrintableTextAndEscapesTheRest) {
  EXPECT_EQ(json_string("plain"), R"("plain")");
  EXPECT_EQ(json_string("a\"b\\c"), R"("a\"b\\c")");
  EXPECT_EQ(json_string("a\nb\rc\td"), R"("a\nb\rc\td")");
  EXPECT_EQ(json_string(std::string_view("\0\x1b\x7f", 3)), R"("\u0000\u001b\u007f")");
  EXPECT_EQ(json_string("gr\u00fcn \u4e2d \U0001F600"), "\"gr\u00fcn \u4e2d \U0001F600\"");
  EXPECT_EQ(json_string("\u0085\u009b\u2028\u2029"), R"("\u0085\u009b\u2028\u2029")") << "C1 controls and Unicode line ends";
}

TEST(AppendJsonString, ReplacesWhatIsNotUtf8) {
  EXPECT_EQ(json_string("a\x80z"), R"("a\ufffdz")");
  EXPECT_EQ(json_string("\xC0\xAF"), R"("\ufffd\ufffd")") << "overlong";
  EXPECT_EQ(json_string("\xED\xA0\x80"), R"("\ufffd\ufffd\ufffd")") << "surrogate";
  EXPECT_EQ(json_string("\xF4\x90\x80\x80"), R"("\ufffd\ufffd\ufffd\ufffd")") << "past U+10FFFF";
  EXPECT_EQ(json_string("\xE4\xB8"), R"("\ufffd\ufffd")") << "cut off";
}

TEST(AppendJsonString, IsReadBackByAJsonParser) {
  std::string every_byte;
  for (int c = 0; c < 256; ++c) every_byte += static_cast<char>(c);
  ASSERT_TRUE(parse_json(json_string(every_byte), "test"));
}

class LogPipe : public ::testing::Test {
 protected:
  void SetUp() override { ASSERT_EQ(::pipe(fds_.data()), 0); }
  void TearDown() override {
    ::close(fds_[0]);
    ::close(fds_[1]);
  }
  std::string read_all() {
    std::array<char, 4096> buffer{};
    const auto length = ::read(fds_[0], buffer.data(), buffer.size());
    return {buffer.data(), static_cast<std::size_t>(length)};
  }
  std::array<int, 2> fds_{};
};

TEST_F(LogPipe, WritesOneJsonLinePerEvent) {
  Log log(LogLevel::info, fds_[1]);
  log.debug("hidden");
  log.warning("policy refused", {{"file", "a\nb"}, {"why", "say \"x\""}});
  const std::string line = read_all();
  EXPECT_THAT(line,
              ::testing::MatchesRegex("\\{\"@timestamp\":\"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\\.[0-9]{3}Z\",.*\n"));
  EXPECT_TRUE(line.ends_with(R"(,"level":"warning","event":"policy refused","file":"a\nb","why":"say \"x\""})"
                             "\n"))
      << line;
  log.set_level(LogLevel::error);
  log.warning("hidden too");
  log.error("seen");
  EXPECT_NE(read_all().find("\"event\":\"seen\""), std::string::npos);
}

}  // namespace
}  // namespace postern
