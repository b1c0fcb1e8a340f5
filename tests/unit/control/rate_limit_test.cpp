#include "control/rate_limit.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

TEST(RateLimit, LetsABurstThroughAndThenItsRate) {
  RateLimit limit(2, 3);
  const RateLimit::Clock::time_point now{};
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(limit.take("a", now));
  EXPECT_FALSE(limit.take("a", now));
  EXPECT_TRUE(limit.take("b", now)) << "another key has its own";
  EXPECT_FALSE(limit.take("a", now + milliseconds(400)));
  EXPECT_TRUE(limit.take("a", now + milliseconds(600)));
  EXPECT_FALSE(limit.take("a", now + milliseconds(600)));
}

TEST(RateLimit, ForgetsKeysThatAreFullAgain) {
  RateLimit limit(1, 1);
  const RateLimit::Clock::time_point now{};
  for (int i = 0; i < 10'000; ++i) EXPECT_TRUE(limit.take(std::to_string(i), now + seconds(i)));
  EXPECT_LE(limit.size(), 1025U);
}

}  // namespace
}  // namespace postern
