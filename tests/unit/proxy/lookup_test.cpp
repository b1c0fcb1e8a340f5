#include "proxy/lookup.hpp"

#include <gtest/gtest.h>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;
using test::ip;

class LookupsTest : public testing::Test {
 protected:
  bool ask(const char* address) {
    return lookups.ask(
        ip(address), [this] { ++answered; }, now);
  }
  LookupAnswer answer(std::uint64_t id, bool known, std::string error = {}) const { return {id, known, std::move(error)}; }

  int woken = 0;
  int answered = 0;
  Lookups::Clock::time_point now{};
  Lookups lookups{[this] { ++woken; }, milliseconds(500)};
};

TEST_F(LookupsTest, OneQuestionForManyWhoAsk) {
  EXPECT_TRUE(ask("10.0.0.1"));
  EXPECT_TRUE(ask("10.0.0.1"));
  EXPECT_EQ(woken, 1);
  const auto questions = lookups.take(now, false);
  ASSERT_EQ(questions.size(), 1U);
  EXPECT_EQ(questions[0].address, ip("10.0.0.1"));
  EXPECT_TRUE(lookups.take(now, false).empty()) << "asked already";
  lookups.answer(answer(questions[0].id, true), now);
  EXPECT_EQ(answered, 2);
}

TEST_F(LookupsTest, ANewStreamIsAskedAgain) {
  EXPECT_TRUE(ask("10.0.0.1"));
  const auto questions = lookups.take(now, false);
  EXPECT_EQ(lookups.take(now, true), questions);
}

TEST_F(LookupsTest, NothingThereIsRememberedForAWhile) {
  EXPECT_TRUE(ask("10.0.0.1"));
  lookups.answer(answer(lookups.take(now, false)[0].id, false), now);
  EXPECT_EQ(answered, 1);
  EXPECT_FALSE(ask("10.0.0.1"));
  now += Lookups::absent_for;
  EXPECT_TRUE(ask("10.0.0.1"));
}

TEST_F(LookupsTest, ARefusalIsNotRemembered) {
  EXPECT_TRUE(ask("10.0.0.1"));
  lookups.answer(answer(lookups.take(now, false)[0].id, false, "too many"), now);
  EXPECT_EQ(answered, 1);
  EXPECT_TRUE(ask("10.0.0.1"));
}

TEST_F(LookupsTest, AQuestionThatWasLostIsAskedAnew) {
  EXPECT_TRUE(ask("10.0.0.1"));
  const auto lost = lookups.take(now, false);
  now += milliseconds(501);
  EXPECT_TRUE(ask("10.0.0.1"));
  const auto anew = lookups.take(now, false);
  ASSERT_EQ(anew.size(), 1U);
  EXPECT_NE(anew[0].id, lost[0].id);
  lookups.answer(answer(lost[0].id, true), now);
  EXPECT_EQ(answered, 0) << "an answer to what is no longer asked";
  lookups.answer(answer(anew[0].id, true), now);
  EXPECT_EQ(answered, 2);
}

TEST_F(LookupsTest, WhatNobodyWaitsForIsNotSent) {
  EXPECT_TRUE(ask("10.0.0.1"));
  now += milliseconds(501);
  EXPECT_TRUE(lookups.take(now, true).empty());
  EXPECT_EQ(answered, 1);
}

TEST_F(LookupsTest, PendingOnesAreBounded) {
  for (std::size_t i = 0; i < Lookups::pending_max; ++i) {
    EXPECT_TRUE(ask(("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250)).c_str()));
  }
  EXPECT_FALSE(ask("10.1.0.0"));
  EXPECT_TRUE(ask("10.0.0.0")) << "one more who waits for the same costs nothing";
}

}  // namespace
}  // namespace postern
