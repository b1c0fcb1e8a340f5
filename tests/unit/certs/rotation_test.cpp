#include "certs/rotation.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace postern {
namespace {

using std::chrono::minutes;

TEST(Rotation, AtHalfOfItsLifeGiveOrTakeATenth) {
  std::mt19937_64 random(7);
  const SystemTime begins{std::chrono::hours(24 * 365 * 50)};
  SystemTime earliest = SystemTime::max();
  SystemTime latest = SystemTime::min();
  for (int i = 0; i < 1'000; ++i) {
    const SystemTime at = renewal_time(begins, begins + minutes(60), random);
    earliest = std::min(earliest, at);
    latest = std::max(latest, at);
  }
  EXPECT_GE(earliest, begins + minutes(24));
  EXPECT_LE(latest, begins + minutes(36));
  // The whole of that range is used.
  EXPECT_LT(earliest, begins + minutes(25));
  EXPECT_GT(latest, begins + minutes(35));
}

}  // namespace
}  // namespace postern
