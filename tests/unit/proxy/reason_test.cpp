#include "proxy/reason.hpp"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace postern {
namespace {

// They are values of close.reason and of a metric's label: whoever filters on one must not get another.
TEST(Reason, EveryOneHasANameOfItsOwn) {
  std::set<std::string_view> names;
  for (std::uint8_t i = 0; i < static_cast<std::uint8_t>(Reason::count_); ++i) {
    const std::string_view name = name_of(static_cast<Reason>(i));
    EXPECT_TRUE(names.insert(name).second) << "reason " << int{i} << " shares the name " << name;
  }
  EXPECT_EQ(names.size(), static_cast<std::size_t>(Reason::count_));
}

TEST(Reason, NamesAreSnakeCase) {
  for (std::uint8_t i = 0; i < static_cast<std::uint8_t>(Reason::count_); ++i) {
    const std::string name{name_of(static_cast<Reason>(i))};
    EXPECT_EQ(name.find_first_not_of("abcdefghijklmnopqrstuvwxyz_"), std::string::npos) << name;
    ASSERT_FALSE(name.empty());
    EXPECT_TRUE(name.front() != '_' && name.back() != '_' && name.find("__") == std::string::npos) << name;
  }
}

TEST(Reason, AFewByName) {
  EXPECT_EQ(name_of(Reason::finished), "finished");
  EXPECT_EQ(name_of(Reason::policy_changed), "policy_changed");
  EXPECT_EQ(name_of(Reason::too_many_from_source), "too_many_from_source");
  EXPECT_EQ(name_of(Reason::protocol_error), "protocol_error");
}

}  // namespace
}  // namespace postern
