#include "proxy/counters.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

TEST(CounterNames, AreThoseOfMetricsAndLogs) {
  EXPECT_EQ(name_of(Direction::inbound), "inbound");
  EXPECT_EQ(name_of(Direction::outbound), "outbound");
  EXPECT_EQ(name_of(VerdictLabel::forwarded), "FORWARDED");
  EXPECT_EQ(name_of(VerdictLabel::dropped), "DROPPED");
  EXPECT_EQ(name_of(VerdictLabel::audit), "AUDIT");
}

TEST(DurationHistogram, PutsAValueOnTheBoundIntoItsBucket) {
  DurationHistogram histogram;
  histogram.observe_us(0);
  histogram.observe_us(100);  // 0.0001 s: still the first
  histogram.observe_us(101);
  histogram.observe_us(2'500);
  histogram.observe_us(5'000'000);
  histogram.observe_us(5'000'001);  // beyond the last bound
  const std::size_t last = DurationHistogram::bounds_s.size();
  EXPECT_EQ(histogram.bucket(0).value(), 2U);
  EXPECT_EQ(histogram.bucket(1).value(), 1U);
  EXPECT_EQ(histogram.bucket(2).value(), 0U);
  EXPECT_EQ(histogram.bucket(3).value(), 1U);
  EXPECT_EQ(histogram.bucket(last - 1).value(), 1U);
  EXPECT_EQ(histogram.bucket(last).value(), 1U);
  EXPECT_EQ(histogram.sum_us(), 0U + 100 + 101 + 2'500 + 5'000'000 + 5'000'001);
}

TEST(DurationHistogram, EveryBoundIsTheUpperEndOfItsBucket) {
  for (std::size_t i = 0; i < DurationHistogram::bounds_s.size(); ++i) {
    DurationHistogram histogram;
    const auto us = static_cast<std::uint64_t>(DurationHistogram::bounds_s[i] * 1e6 + 0.5);
    histogram.observe_us(us);
    histogram.observe_us(us + 1);
    EXPECT_EQ(histogram.bucket(i).value(), 1U) << i;
    EXPECT_EQ(histogram.bucket(i + 1).value(), 1U) << i;
  }
}

}  // namespace
}  // namespace postern
