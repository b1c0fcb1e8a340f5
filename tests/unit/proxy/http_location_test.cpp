#include "proxy/http_location.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

HttpStep step_of(const char* target = "/a/b/c?q=1") { return {false, {*IpAddress::parse("10.0.0.5"), Port{8080}}, target, "shop.example"}; }

TEST(HttpLocation, IsResolvedAsAUrlIs) {
  // RFC 3986 section 5.4, in part.
  const std::pair<const char*, const char*> known[] = {
      {"/x", "/x"},
      {"g", "/a/b/g"},
      {"./g", "/a/b/g"},
      {"g/", "/a/b/g/"},
      {"?y", "/a/b/c?y"},
      {"g?y#s", "/a/b/g?y"},
      {"", "/a/b/c?q=1"},
      {"..", "/a/"},
      {"../g", "/a/g"},
      {"../..", "/"},
      {"../../../g", "/g"},
      {"/a/./b/../g", "/a/g"},
      {"/..", "/"},
      {"./", "/a/b/"},
      {"g?y/./x", "/a/b/g?y/./x"},
      {"/a b", "/a%20b"},
      {"/x\r\nA: b", "/x%0D%0AA:%20b"},
  };
  for (const auto& [location, target] : known) {
    const auto next = follow_location(step_of(), location);
    ASSERT_TRUE(next && *next) << location;
    EXPECT_EQ((*next)->target, target) << location;
    EXPECT_EQ((*next)->server, step_of().server);
    EXPECT_EQ((*next)->host, "shop.example") << "a relative location keeps the Host";
  }
}

TEST(HttpLocation, SameHostIsFollowedWhateverThePort) {
  const auto next = follow_location(step_of(), "HTTPS://10.0.0.5:8443/x");
  ASSERT_TRUE(next && *next);
  EXPECT_TRUE((*next)->tls);
  EXPECT_EQ((*next)->server.text(), "10.0.0.5:8443");
  EXPECT_EQ((*next)->host, "10.0.0.5:8443");
  EXPECT_EQ((*follow_location(step_of(), "http://10.0.0.5"))->server.port, Port{80});
  EXPECT_EQ((*follow_location(step_of(), "https://10.0.0.5:/"))->server.port, Port{443});
  EXPECT_EQ((*follow_location(step_of(), "//10.0.0.5:81?y"))->target, "/?y");
  HttpStep v6 = step_of();
  v6.server.address = *IpAddress::parse("fd00::5");
  EXPECT_EQ((*follow_location(v6, "http://[fd00::5]:81/"))->server.port, Port{81});
  EXPECT_EQ((*follow_location(v6, "http://[fd00:0::5]/"))->server.port, Port{80});
}

TEST(HttpLocation, AnotherHostIsNot) {
  for (const char* location : {"http://10.0.0.6:8080/", "https://shop.example/login", "//shop.example/", "http://[10.0.0.5/", "http:///x",
                               "http://10.0.0.5.example/"}) {
    const auto next = follow_location(step_of(), location);
    ASSERT_TRUE(next) << location;
    EXPECT_FALSE(*next) << location;
  }
}

TEST(HttpLocation, NonsenseIsAnError) {
  for (const std::string& location : {std::string("ftp://10.0.0.5/"), std::string("http:/x"), std::string("mailto:x"),
                                      std::string("http://a@10.0.0.5/"), std::string("http://10.0.0.5:0/"),
                                      std::string("http://10.0.0.5:99999/"), std::string("http://10.0.0.5:8x/"), std::string(9'000, 'x')}) {
    EXPECT_FALSE(follow_location(step_of(), location)) << location.substr(0, 80);
  }
}

}  // namespace
}  // namespace postern
