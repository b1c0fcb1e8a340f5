#include "authz/labels.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

using Op = SelectorOperator;

struct RequirementCase {
  const char* what;
  SelectorRequirement requirement;
  Labels labels;
  bool matches;
};

TEST(Labels, RequirementsMatchAsApimachineryHasThem) {
  const Labels web{{"app", "web"}, {"canary", ""}};
  const std::vector<RequirementCase> cases{
      {"In, listed", {"app", Op::in, {"api", "web"}}, web, true},
      {"In, not listed", {"app", Op::in, {"api"}}, web, false},
      {"In, no such key", {"tier", Op::in, {"web"}}, web, false},
      {"In, empty value", {"canary", Op::in, {""}}, web, true},
      {"In, empty value, no such key", {"tier", Op::in, {""}}, web, false},
      {"NotIn, listed", {"app", Op::not_in, {"web"}}, web, false},
      {"NotIn, not listed", {"app", Op::not_in, {"api"}}, web, true},
      {"NotIn, no such key", {"tier", Op::not_in, {"web"}}, web, true},
      {"Exists", {"canary", Op::exists, {}}, web, true},
      {"Exists, no such key", {"tier", Op::exists, {}}, web, false},
      {"DoesNotExist", {"app", Op::does_not_exist, {}}, web, false},
      {"DoesNotExist, no such key", {"tier", Op::does_not_exist, {}}, web, true},
  };
  for (const auto& c : cases) EXPECT_EQ(matches(c.requirement, c.labels), c.matches) << c.what;
}

TEST(Labels, AllOfASelectorMustHold) {
  const LabelSelector selector{.match_labels = {{"app", "web"}}, .match_expressions = {{"tier", Op::exists, {}}}};
  EXPECT_TRUE(matches(selector, {{"app", "web"}, {"tier", "x"}}));
  EXPECT_FALSE(matches(selector, {{"app", "web"}}));
  EXPECT_FALSE(matches(selector, {{"tier", "x"}}));
  EXPECT_TRUE(matches(LabelSelector{}, {}));
}

TEST(Labels, CanonicalMakesEquallyMeantSelectorsEqual) {
  const LabelSelector by_label{.match_labels = {{"app", "web"}}, .match_expressions = {}};
  const LabelSelector by_expression{.match_labels = {}, .match_expressions = {{"app", Op::in, {"web", "web"}}}};
  EXPECT_EQ(canonical(by_label), canonical(by_expression));
  const LabelSelector ab{.match_labels = {}, .match_expressions = {{"x", Op::in, {"a", "b"}}, {"y", Op::exists, {}}}};
  const LabelSelector ba{.match_labels = {}, .match_expressions = {{"y", Op::exists, {}}, {"x", Op::in, {"b", "a"}}}};
  EXPECT_EQ(canonical(ab), canonical(ba));
  EXPECT_NE(canonical(by_label), canonical(ab));
}

TEST(Labels, TextIsWhatKubectlTakes) {
  EXPECT_EQ(text_of(LabelSelector{}), "{}");
  const LabelSelector all{
      .match_labels = {{"app", "web"}},
      .match_expressions = {{"tier", Op::in, {"a", "b"}}, {"x", Op::not_in, {"c"}}, {"y", Op::exists, {}}, {"z", Op::does_not_exist, {}}}};
  EXPECT_EQ(text_of(all), "app=web,tier in (a,b),x notin (c),y,!z");
}

}  // namespace
}  // namespace postern
