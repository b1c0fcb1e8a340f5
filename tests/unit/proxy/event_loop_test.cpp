#include "proxy/event_loop.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using test::run_until;
using test::TestEnd;
using testing::ElementsAre;

struct Calls final : Waiter {
  explicit Calls(std::function<void()> what = {}) : what(std::move(what)) {}
  void wake() override {
    ++count;
    if (what) what();
  }
  int count = 0;
  std::function<void()> what;
};

class EventLoopTest : public testing::Test {
 protected:
  DurationHistogram turns;
  EventLoop loop{turns};
};

TEST_F(EventLoopTest, SetsEachFlagOnItsEdge) {
  auto [a, b] = test::tcp_pair();
  TestEnd mine(a), theirs(b);
  Watch watch;
  ASSERT_TRUE(loop.watch(mine.fd(), watch));
  EXPECT_TRUE(run_until(loop, [&] { return watch.writable; }));
  EXPECT_FALSE(watch.readable);
  theirs.send("x");
  EXPECT_TRUE(run_until(loop, [&] { return watch.readable; }));
  EXPECT_FALSE(watch.hung_up);
  EXPECT_FALSE(watch.may_hide);
  watch.readable = false;
  loop.run_once(milliseconds(10));
  EXPECT_FALSE(watch.readable) << "the same bytes are announced once";
  theirs.send("y");
  EXPECT_TRUE(run_until(loop, [&] { return watch.readable; }));
  theirs.end();
  EXPECT_TRUE(run_until(loop, [&] { return watch.hung_up; }));
  EXPECT_TRUE(watch.may_hide);
  EXPECT_FALSE(watch.failed);
  theirs.abort();
  EXPECT_TRUE(run_until(loop, [&] { return watch.failed; }));
}

TEST_F(EventLoopTest, UrgentDataMayHideMore) {
  auto [a, b] = test::tcp_pair();
  TestEnd mine(a), theirs(b);
  Watch watch;
  ASSERT_TRUE(loop.watch(mine.fd(), watch));
  send(theirs.fd(), "!", 1, MSG_OOB);
  EXPECT_TRUE(run_until(loop, [&] { return watch.may_hide && watch.readable; }));
  EXPECT_FALSE(watch.hung_up);
}

TEST_F(EventLoopTest, WakesTheWaiterOncePerTurn) {
  auto [a, b] = test::tcp_pair();
  TestEnd mine(a), theirs(b);
  Watch watch;
  Calls waiter;
  ASSERT_TRUE(loop.watch(mine.fd(), watch));
  loop.run_once(milliseconds(10));
  watch.waiter = &waiter;
  theirs.send("x");
  theirs.end();
  loop.run_once(milliseconds(1000));
  EXPECT_EQ(waiter.count, 1);
}

TEST_F(EventLoopTest, NothingMoreAfterUnwatch) {
  auto [a, b] = test::tcp_pair();
  TestEnd mine(a), theirs(b);
  Watch watch;
  ASSERT_TRUE(loop.watch(mine.fd(), watch));
  loop.run_once(milliseconds(10));
  loop.unwatch(mine.fd());
  theirs.send("x");
  loop.run_once(milliseconds(10));
  EXPECT_FALSE(watch.readable);
}

TEST_F(EventLoopTest, AWaiterMayDieWhileItIsReady) {
  std::optional<Calls> second;
  Calls first([&] { second.reset(); });
  second.emplace();
  loop.make_ready(first);
  loop.make_ready(*second);
  loop.run_once(milliseconds(0));
  EXPECT_EQ(first.count, 1);
  loop.run_once(milliseconds(0));  // nothing dangles
}

TEST_F(EventLoopTest, AWaiterMayDieOfItsOwnCall) {
  std::optional<Calls> waiter;
  waiter.emplace([&] { waiter.reset(); });
  loop.make_ready(*waiter);
  loop.run_once(milliseconds(0));
  EXPECT_FALSE(waiter);
}

TEST_F(EventLoopTest, WhatIsMadeReadyMeanwhileRunsInTheNextTurn) {
  Calls waiter;
  waiter.what = [&] {
    if (waiter.count < 3) loop.make_ready(waiter);
  };
  loop.make_ready(waiter);
  loop.make_ready(waiter);  // once is enough
  loop.run_once(milliseconds(0));
  EXPECT_EQ(waiter.count, 1);
  loop.run_once(milliseconds(1000));  // does not wait: something is ready
  EXPECT_EQ(waiter.count, 2);
}

TEST_F(EventLoopTest, TimersFireInOrderOfTheirDeadlines) {
  std::vector<int> order;
  std::vector<std::unique_ptr<Timer>> timers;
  for (const int after : {7, 3, 9, 1, 5, 8, 2, 6, 4, 0}) {
    timers.push_back(std::make_unique<Timer>(loop, [&order, after] { order.push_back(after); }));
    timers.back()->arm(milliseconds(after));
  }
  EXPECT_TRUE(run_until(loop, [&] { return order.size() == 10; }));
  EXPECT_THAT(order, ElementsAre(0, 1, 2, 3, 4, 5, 6, 7, 8, 9));
}

TEST_F(EventLoopTest, ACancelledTimerDoesNotFireWhereverItStandsInTheHeap) {
  for (int victim = 0; victim < 20; ++victim) {
    std::vector<int> order;
    std::vector<std::unique_ptr<Timer>> timers;
    const auto after = [](int i) { return i * 7 % 20; };
    for (int i = 0; i < 20; ++i) timers.push_back(std::make_unique<Timer>(loop, [&order, i, &after] { order.push_back(after(i)); }));
    // Each deadline counts from its own arm(): a thread that is put aside between two of them would change their order.
    const auto step = microseconds(100);
    std::chrono::steady_clock::time_point began;
    do {
      began = std::chrono::steady_clock::now();
      for (int i = 0; i < 20; ++i) timers[static_cast<std::size_t>(i)]->arm(step * after(i));
    } while (std::chrono::steady_clock::now() - began >= step);
    timers[static_cast<std::size_t>(victim)]->cancel();
    EXPECT_FALSE(timers[static_cast<std::size_t>(victim)]->armed());
    EXPECT_TRUE(run_until(loop, [&] { return order.size() == 19; }));
    EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
  }
}

TEST_F(EventLoopTest, ATimerThatDiesDoesNotFire) {
  int fired = 0;
  Timer last(loop, [&] { fired += 100; });
  last.arm(milliseconds(3));
  {
    Timer timer(loop, [&] { ++fired; });
    timer.arm(milliseconds(1));
  }
  EXPECT_TRUE(run_until(loop, [&] { return fired >= 100; }));
  EXPECT_EQ(fired, 100);
}

TEST_F(EventLoopTest, ATimerMayArmItselfCancelOthersOrDieInItsCall) {
  int fired = 0;
  std::optional<Timer> dies;
  Timer other(loop, [&] { ADD_FAILURE() << "was cancelled"; });
  std::optional<Timer> again;
  again.emplace(loop, [&] {
    if (++fired < 3) return again->arm(milliseconds(1));
    other.cancel();
    dies.reset();
  });
  dies.emplace(loop, [&] { ADD_FAILURE() << "is gone"; });
  again->arm(milliseconds(0));
  other.arm(milliseconds(500));
  dies->arm(milliseconds(500));
  EXPECT_TRUE(run_until(loop, [&] { return fired == 3; }));
  EXPECT_FALSE(again->armed());
  EXPECT_FALSE(other.armed());
}

TEST_F(EventLoopTest, ArmingAgainReplacesTheDeadline) {
  int fired = 0;
  Timer timer(loop, [&] { ++fired; });
  timer.arm(std::chrono::hours(1));
  timer.arm(milliseconds(1));
  EXPECT_TRUE(run_until(loop, [&] { return fired == 1; }));
  timer.arm(milliseconds(1));
  timer.arm(std::chrono::hours(1));
  loop.run_once(milliseconds(20));
  EXPECT_EQ(fired, 1);
}

TEST_F(EventLoopTest, RunsEveryPostOfEveryThread) {
  constexpr int threads = 4;
  constexpr int posts = 2000;
  int done = 0;  // only the loop's thread touches it
  std::vector<std::thread> posting;
  for (int t = 0; t < threads; ++t) {
    posting.emplace_back([&] {
      for (int i = 0; i < posts; ++i) loop.post([&done] { ++done; });
    });
  }
  EXPECT_TRUE(run_until(loop, [&] { return done == threads * posts; }));
  for (std::thread& thread : posting) thread.join();
}

TEST_F(EventLoopTest, StopEndsARunningLoopFromAnotherThread) {
  std::thread other([&] { loop.stop(); });
  loop.run();
  other.join();
}

TEST_F(EventLoopTest, OnlyTurnsWithEventsAreMeasured) {
  const auto count = [&] {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i <= DurationHistogram::bounds_s.size(); ++i) sum += turns.bucket(i).value();
    return sum;
  };
  loop.run_once(milliseconds(1));  // its own wake-up descriptor is announced
  const std::uint64_t before = count();
  loop.run_once(milliseconds(1));
  EXPECT_EQ(count(), before);
  loop.post([] {});
  loop.run_once(milliseconds(1000));
  EXPECT_EQ(count(), before + 1);
}

}  // namespace
}  // namespace postern
