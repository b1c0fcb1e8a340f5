#include "base/https_url.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

TEST(HttpsUrl, HasHostPortAndPath) {
  EXPECT_EQ(parse_https_url("https://a.example").value(), (HttpsUrl{"a.example", 443, ""}));
  EXPECT_EQ(parse_https_url("https://a.example:8443/bundle.json?v=1").value(), (HttpsUrl{"a.example", 8443, "/bundle.json?v=1"}));
  EXPECT_EQ(parse_https_url("https://a.example?v=1").value(), (HttpsUrl{"a.example", 443, "?v=1"}));
  EXPECT_EQ(parse_https_url("https://192.0.2.1:1/").value(), (HttpsUrl{"192.0.2.1", 1, "/"}));
  EXPECT_EQ(parse_https_url("https://[fd00::1]:8443").value(), (HttpsUrl{"fd00::1", 8443, ""}));
  EXPECT_EQ(parse_https_url("https://[fd00::1]").value(), (HttpsUrl{"fd00::1", 443, ""}));
}

TEST(HttpsUrl, IsRefusedWithWhatIsExpected) {
  for (const char* bad :
       {"", "http://a.example", "a.example", "https://", "https://:443", "https://me@a.example", "https://a.example/#x",
        "https://a.example/ x", "https://a.example:0", "https://a.example:65536", "https://a.example:", "https://a.example:x",
        "https://[fd00::1", "https://[a.example]", "https://[fd00::1]8443", "https://a\tb", "https://a,b", "https://\xC3\xA9.example"}) {
    const auto url = parse_https_url(bad);
    EXPECT_FALSE(url) << bad;
    if (!url) {
      EXPECT_TRUE(url.error().message.starts_with("expected ")) << url.error().message;
    }
  }
  EXPECT_FALSE(parse_https_url("https://" + std::string(254, 'a')));
}

}  // namespace
}  // namespace postern
