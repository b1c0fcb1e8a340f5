#include "control/quantity.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

TEST(Quantity, IsReadInUnits) {
  EXPECT_EQ(parse_quantity("1"), 1.0);
  EXPECT_EQ(parse_quantity("0.5"), 0.5);
  EXPECT_EQ(parse_quantity("250m"), 0.25);
  EXPECT_EQ(parse_quantity("2k"), 2000.0);
  EXPECT_EQ(parse_quantity("1Mi"), 1048576.0);
  EXPECT_EQ(parse_quantity("1000m"), parse_quantity("1"));
}

TEST(Quantity, RefusesAnythingElse) {
  for (const char* text : {"", "m", "-1", "+1", "1 Mi", "1mi", "1KB", ".5", "1..2", "1e3", "Mi1", "0x10", "9999999999999999999"}) {
    EXPECT_FALSE(parse_quantity(text)) << text;
  }
}

}  // namespace
}  // namespace postern
