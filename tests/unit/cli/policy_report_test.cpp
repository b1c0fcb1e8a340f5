#include "cli/policy_report.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

std::string pod(std::string_view name, std::string_view state, std::string_view reason = "") {
  std::string text = R"({"namespace":"shop","name":")" + std::string(name) + R"(","state":")" + std::string(state) + "\"";
  if (!reason.empty()) text += R"(,"reason":")" + std::string(reason) + "\"";
  return text + "}";
}

std::string answer(int generation, const std::string& pods, int lagging = 0) {
  return R"({"synced":true,"streams":2,"laggingStreams":)" + std::to_string(lagging) +
         R"(,"policies":[{"namespace":"shop","name":"web","generation":)" + std::to_string(generation) + R"(,"pods":[)" + pods +
         R"(],"notEnforced":["ingress rule 1: UDP port 53"]}]})";
}

Report report_of(std::initializer_list<std::string> answers) {
  Report report;
  for (const std::string& body : answers) EXPECT_TRUE(add_answer(report, body));
  return report;
}

const Question about_web{.policy = "shop/web", .generation = {}, .absent = false, .strict = false};

TEST(PolicyReport, APodEnforcedAtOneReplicaIsEnforced) {
  const Report report = report_of(
      {answer(2, pod("a", "enforced") + "," + pod("b", "disconnected")), answer(2, pod("a", "disconnected") + "," + pod("b", "enforced"))});
  EXPECT_THAT(missing_of(report, about_web), IsEmpty());
  EXPECT_THAT(report_table(report), HasSubstr("2/2"));
}

TEST(PolicyReport, WhatWasAcknowledgedOfAnOlderGenerationSaysNothing) {
  for (const auto& order : {std::vector{1, 2}, std::vector{2, 1}}) {
    Report report;
    for (const int generation : order)
      EXPECT_TRUE(add_answer(report, answer(generation, pod("a", generation == 1 ? "enforced" : "disconnected"))));
    EXPECT_THAT(missing_of(report, about_web), ElementsAre("shop/web: shop/a disconnected"));
  }
}

TEST(PolicyReport, LaggardsAreNamedWithTheirReason) {
  const Report report = report_of({answer(2, pod("a", "lagging", "refused: too large"))});
  EXPECT_THAT(missing_of(report, about_web), ElementsAre("shop/web: shop/a lagging (refused: too large)"));
  EXPECT_THAT(report_table(report), HasSubstr("too large"));
  EXPECT_THAT(report_json(report), HasSubstr("\"reason\": \"refused: too large\""));
}

TEST(PolicyReport, UnmeshedPodsBlockOnlyWhereThatIsAsked) {
  const Report report = report_of({answer(2, pod("a", "unmeshed") + "," + pod("b", "audit"))});
  EXPECT_THAT(missing_of(report, about_web), IsEmpty());
  Question strict = about_web;
  strict.strict = true;
  EXPECT_THAT(missing_of(report, strict), ElementsAre("shop/web: shop/a unmeshed"));
}

TEST(PolicyReport, AGenerationThatNobodyHasSeenIsMissing) {
  const Report report = report_of({answer(2, pod("a", "enforced"))});
  Question newer = about_web;
  newer.generation = 3;
  EXPECT_THAT(missing_of(report, newer), Not(IsEmpty()));
  newer.generation = 2;
  EXPECT_THAT(missing_of(report, newer), IsEmpty());
}

TEST(PolicyReport, APolicyThatIsNotThereIsMissingOrAbsent) {
  const std::string none = R"({"synced":true,"streams":1,"laggingStreams":0,"policies":[]})";
  EXPECT_THAT(missing_of(report_of({none}), about_web), Not(IsEmpty()));
  Question absent = about_web;
  absent.absent = true;
  const auto asked = [&](std::initializer_list<std::string> answers) {
    Report report = report_of(answers);
    EXPECT_TRUE(add_unconnected(report, R"({"synced":true,"pods":[]})"));
    return missing_of(report, absent);
  };
  EXPECT_THAT(asked({none}), IsEmpty());
  EXPECT_THAT(asked({answer(1, "")}), Not(IsEmpty()));
  EXPECT_THAT(missing_of(report_of({none}), absent), ElementsAre(HasSubstr("which sidecars are connected")));
  const std::string busy = R"({"synced":true,"streams":1,"laggingStreams":1,"policies":[]})";
  EXPECT_THAT(asked({none, busy}), Not(IsEmpty()));
}

TEST(PolicyReport, WhoIsConnectedNowhereMayStillEnforceWhatIsGone) {
  Report report = report_of({R"({"synced":true,"streams":1,"laggingStreams":0,"policies":[]})"});
  Question absent = about_web;
  absent.absent = true;
  EXPECT_TRUE(add_unconnected(report, R"({"synced":true,"pods":["shop/a","shop/b"]})"));
  EXPECT_EQ(missing_of(report, absent).size(), 2U);
  EXPECT_TRUE(add_unconnected(report, R"({"synced":true,"pods":["shop/b","shop/c"]})"));
  EXPECT_THAT(missing_of(report, absent), ElementsAre(HasSubstr("shop/b disconnected")));
  EXPECT_TRUE(add_unconnected(report, R"({"synced":true,"pods":["shop/a","shop/c"]})"));
  EXPECT_THAT(missing_of(report, absent), IsEmpty());
  EXPECT_FALSE(add_unconnected(report, R"({"synced":false,"pods":[]})"));
  EXPECT_FALSE(add_unconnected(report, "hello"));
}

TEST(PolicyReport, AReplicaThatHasNotReadTheClusterDoesNotCount) {
  Report report;
  EXPECT_FALSE(add_answer(report, R"({"synced":false,"streams":0,"laggingStreams":0,"policies":[]})"));
  EXPECT_FALSE(add_answer(report, "{}"));
  EXPECT_FALSE(add_answer(report, "hello"));
  EXPECT_THAT(missing_of(report, {}), Not(IsEmpty()));
}

TEST(PolicyReport, RulesThatAProxyCannotEnforceAreNamed) {
  EXPECT_THAT(report_table(report_of({answer(1, "")})), HasSubstr("not enforced by the proxy: ingress rule 1: UDP port 53"));
}

}  // namespace
}  // namespace postern::cli
