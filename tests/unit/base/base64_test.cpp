#include "base/base64.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

// RFC 4648 section 10.
TEST(Base64, TestVectors) {
  for (const auto& [bytes, text] : {std::pair{"", ""}, std::pair{"f", "Zg=="}, std::pair{"fo", "Zm8="}, std::pair{"foo", "Zm9v"},
                                    std::pair{"foob", "Zm9vYg=="}, std::pair{"fooba", "Zm9vYmE="}, std::pair{"foobar", "Zm9vYmFy"}}) {
    EXPECT_EQ(to_base64(bytes), text);
    EXPECT_EQ(from_base64(text), bytes);
  }
}

TEST(Base64, EveryByteComesBack) {
  std::string all;
  for (int i = 0; i < 256; ++i) all += static_cast<char>(i);
  EXPECT_EQ(from_base64(to_base64(all)), all);
}

TEST(Base64, RefusesAnythingElse) {
  for (const char* text : {"Z", "Zg", "Zg=", "Zh==", "Zm9", "Zm9v\n", "Zm 9", "Zg==Zg==", "====", "Z===", "Zm-_"})
    EXPECT_FALSE(from_base64(text)) << text;
}

}  // namespace
}  // namespace postern
