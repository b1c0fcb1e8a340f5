#include "proxy/policy_state.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>

namespace postern {
namespace {

using std::chrono::hours;
using std::chrono::minutes;
using std::chrono::seconds;
using std::chrono::system_clock;
using testing::HasSubstr;

class Folder {
 public:
  Folder() : path_(testing::TempDir() + "policy-state-" + std::to_string(getpid())) { std::filesystem::create_directory(path_); }
  ~Folder() { std::filesystem::remove_all(path_); }
  const std::string& path() const { return path_; }
  std::string file() const { return path_ + "/" + std::string(policy_state_name); }

 private:
  std::string path_;
};

PolicyState example() {
  PolicyState state;
  state.written_at = system_clock::time_point(seconds(1'700'000'000));
  state.workload = "default/web";
  state.update.mark = {"epoch-1", {{"pods", 7}, {"networkpolicies", 9}}};
  state.update.resources.push_back(std::make_shared<const Resource>(Resource{"nodes", "abc", R"(["10.0.0.1"])"}));
  return state;
}

TEST(PolicyState, SurvivesWritingAndReading) {
  const Folder folder;
  ASSERT_TRUE(write_policy_state(folder.path(), encode_policy_state(example())));
  const auto bytes = read_policy_state(folder.path());
  ASSERT_TRUE(bytes && *bytes);
  const auto state = decode_policy_state(**bytes);
  ASSERT_TRUE(state) << state.error().text();
  EXPECT_EQ(state->written_at, example().written_at);
  EXPECT_EQ(state->workload, "default/web");
  EXPECT_EQ(state->update.mark, example().update.mark);
  ASSERT_EQ(state->update.resources.size(), 1U);
  EXPECT_EQ(*state->update.resources[0], *example().update.resources[0]);
}

TEST(PolicyState, IsOnlyItsOwnersAndReplacedWhole) {
  const Folder folder;
  ASSERT_TRUE(write_policy_state(folder.path(), "first"));
  ASSERT_TRUE(write_policy_state(folder.path(), "second"));
  EXPECT_EQ(read_policy_state(folder.path()).value(), "second");
  struct stat status {};
  ASSERT_EQ(stat(folder.file().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600U);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder.path()), {}), 1);
}

TEST(PolicyState, WithoutAFileThereIsNone) {
  const Folder folder;
  const auto bytes = read_policy_state(folder.path());
  ASSERT_TRUE(bytes);
  EXPECT_FALSE(*bytes);
}

TEST(PolicyState, AFileThatOthersMayTouchIsRefused) {
  const Folder folder;
  ASSERT_TRUE(write_policy_state(folder.path(), "x"));
  ASSERT_EQ(chmod(folder.file().c_str(), 0644), 0);
  const auto bytes = read_policy_state(folder.path());
  ASSERT_FALSE(bytes);
  EXPECT_THAT(bytes.error().text(), HasSubstr("0600"));
}

TEST(PolicyState, ASymbolicLinkIsNotFollowed) {
  const Folder folder;
  std::ofstream(folder.path() + "/other") << "x";
  ASSERT_EQ(chmod((folder.path() + "/other").c_str(), 0600), 0);
  std::filesystem::create_symlink("other", folder.file());
  EXPECT_FALSE(read_policy_state(folder.path()));
}

TEST(PolicyState, EveryChangedByteIsNoticed) {
  const std::string good = encode_policy_state(example());
  ASSERT_TRUE(decode_policy_state(good));
  for (std::size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] = static_cast<char>(bad[i] ^ 1);
    EXPECT_FALSE(decode_policy_state(bad)) << "byte " << i;
    EXPECT_FALSE(decode_policy_state(std::string_view(good).substr(0, i))) << "cut at " << i;
  }
}

TEST(PolicyState, TooOldIsRefusedAndSoIsTheFuture) {
  const PolicyState state = example();
  EXPECT_TRUE(check_age(state, state.written_at + hours(24), hours(24)));
  const auto old = check_age(state, state.written_at + hours(24) + seconds(1), hours(24));
  ASSERT_FALSE(old);
  EXPECT_THAT(old.error().text(), HasSubstr("86401 s old; control.maxPolicyAge allows 86400 s"));
  EXPECT_TRUE(check_age(state, state.written_at - seconds(5), hours(24))) << "a clock that was set back a little";
  EXPECT_FALSE(check_age(state, state.written_at - minutes(2), hours(24)));
}

}  // namespace
}  // namespace postern
