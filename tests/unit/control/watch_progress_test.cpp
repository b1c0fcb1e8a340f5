#include "control/watch_progress.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

using namespace std::chrono_literals;

struct WatchProgressTest : testing::Test {
  // Whether a question is due now, and for which version: asks it. 0: none is.
  std::uint64_t ask() {
    const auto due = progress.due(seen);
    return due && *due <= now ? progress.take(now) : 0;
  }

  WatchProgress progress{{.patience = 500ms, .pause_first = 2s, .pause_most = 10s}};
  WatchProgress::Clock::time_point now{};
  std::uint64_t seen = 100;
};

TEST_F(WatchProgressTest, NobodyWaitsNobodyAsks) { EXPECT_FALSE(progress.due(seen)); }

TEST_F(WatchProgressTest, AWatchThatLagsALittleIsNotAskedAbout) {
  progress.want(105, now);
  EXPECT_EQ(ask(), 0U);
  now += 400ms;
  seen = 105;
  EXPECT_FALSE(progress.due(seen));
  now += 1s;
  EXPECT_EQ(ask(), 0U);
}

TEST_F(WatchProgressTest, TheSmallestIsAskedForOnce) {
  progress.want(~std::uint64_t{0}, now);
  progress.want(105, now);
  progress.want(109, now);
  now += 500ms;
  EXPECT_EQ(ask(), 105U);
  EXPECT_EQ(ask(), 0U);
}

TEST_F(WatchProgressTest, TheNextQuestionWaitsAndMoreSoWhereTheyBringNothing) {
  const auto began = now;
  unsigned asked = 0;
  for (; now - began < 60s; now += 100ms) {
    progress.want(105, now);
    if (ask() != 0) ++asked;
  }
  EXPECT_GE(asked, 6U);
  EXPECT_LE(asked, 9U);
}

TEST_F(WatchProgressTest, OneThatWasReachedMakesTheNextOneQuickAgain) {
  for (int i = 0; i < 100; ++i, now += 100ms) {
    progress.want(105, now);
    ask();
  }
  seen = 105;
  EXPECT_FALSE(progress.due(seen));
  now += 10s;
  progress.want(110, now);
  now += 500ms;
  EXPECT_EQ(ask(), 110U);
  progress.want(110, now);
  now += 2s;
  EXPECT_EQ(ask(), 110U) << "the pause is the first one again";
}

TEST_F(WatchProgressTest, AMarkFromNowhereIsAskedForEverMoreRarely) {
  const auto began = now;
  unsigned asked = 0;
  for (; now - began < 60s; now += 100ms) {
    progress.want(1'000'000'000, now);
    const std::uint64_t version = ask();
    if (version == 0) continue;
    ++asked;
    progress.refused(version, now);
  }
  EXPECT_GE(asked, 5U);
  EXPECT_LE(asked, 9U);
}

TEST_F(WatchProgressTest, AMarkFromNowhereHoldsNobodyUp) {
  progress.want(1'000'000'000, now);
  now += 500ms;
  const std::uint64_t version = ask();
  ASSERT_EQ(version, 1'000'000'000U);
  progress.refused(version, now);
  progress.want(1'000'000'000, now);
  EXPECT_FALSE(progress.due(seen)) << "what was refused is not asked for again at once";
  progress.want(105, now);
  now += 2s;
  EXPECT_EQ(ask(), 105U);
}

TEST_F(WatchProgressTest, MarksFromNowhereThatCountDownAreAskedForNoFaster) {
  const auto began = now;
  unsigned asked = 0;
  for (std::uint64_t wanted = 1'000'000; now - began < 60s; now += 100ms, --wanted) {
    progress.want(wanted, now);
    const std::uint64_t version = ask();
    if (version == 0) continue;
    ++asked;
    progress.refused(version, now);
  }
  EXPECT_LE(asked, 31U) << "one in two seconds";
}

}  // namespace
}  // namespace postern
