#include "base/back_off.hpp"

#include <gtest/gtest.h>

#include <set>

namespace postern {
namespace {

using std::chrono::milliseconds;

TEST(BackOff, DoublesUpToTheLongestAndBeginsAnew) {
  std::mt19937_64 random(7);
  BackOff back_off(milliseconds(200), milliseconds(1'000));
  for (const int most : {200, 400, 800, 1'000, 1'000}) {
    const milliseconds wait = back_off.next(random);
    EXPECT_GE(wait, milliseconds(most / 2));
    EXPECT_LE(wait, milliseconds(most));
  }
  back_off.reset();
  EXPECT_LE(back_off.next(random), milliseconds(200));
}

TEST(BackOff, ThoseWhoFailTogetherComeBackOneByOne) {
  std::mt19937_64 random(7);
  std::set<milliseconds> waits;
  for (int i = 0; i < 100; ++i) waits.insert(BackOff(milliseconds(10'000), milliseconds(10'000)).next(random));
  EXPECT_GT(waits.size(), 90U);
}

}  // namespace
}  // namespace postern
