#include "proxy/policy_directory.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <thread>

#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

constexpr const char* world = R"(
apiVersion: v1
kind: Namespace
metadata: {name: default}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: default, uid: u1}
spec: {containers: [{name: c, image: i}]}
status: {phase: Running, podIPs: [{ip: 10.0.0.1}]}
)";
constexpr const char* deny = R"(
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress]}
)";

class PolicyDirectoryTest : public testing::Test {
 protected:
  PolicyDirectoryTest()
      : root(fs::temp_directory_path() /
             ("postern-policy-" + std::to_string(getpid()) + "-" + testing::UnitTest::GetInstance()->current_test_info()->name())) {
    fs::create_directories(root / "one");
    write("one/world.yaml", world);
    settings.trust_domain = TrustDomain::parse("example.org").value();
  }
  ~PolicyDirectoryTest() override { fs::remove_all(root); }
  void write(const std::string& name, std::string_view text) const { test::write_file((root / name).string(), text); }
  std::unique_ptr<PolicyDirectory> open(const std::string& name) {
    return std::move(PolicyDirectory::make((root / name).string(), {"default", "web"}, settings).value());
  }
  // Whether the directory announces a change within a second.
  static bool announced(PolicyDirectory& directory) {
    pollfd waiting{directory.fd(), POLLIN, 0};
    const bool is = poll(&waiting, 1, 1000) == 1;
    directory.drain();
    return is;
  }
  static bool isolated(const PolicySnapshot& snapshot) {
    return !snapshot.allow_list().direction(PolicyDirection::ingress).isolating.empty();
  }

  fs::path root;
  MeshSettings settings;
};

TEST_F(PolicyDirectoryTest, ReadsOnceUntilSomethingChanges) {
  const auto directory = open("one");
  auto read = directory->read();
  ASSERT_TRUE(read && *read) << (read ? read->error().text() : "nothing");
  EXPECT_EQ((**read)->generation(), 1U);
  EXPECT_FALSE(isolated(***read));
  EXPECT_FALSE(directory->read());
  write("one/deny.yaml", deny);
  EXPECT_TRUE(announced(*directory));
  read = directory->read();
  ASSERT_TRUE(read && *read);
  EXPECT_EQ((**read)->generation(), 2U);
  EXPECT_TRUE(isolated(***read));
  fs::remove(root / "one/deny.yaml");
  EXPECT_TRUE(announced(*directory));
  EXPECT_FALSE(isolated(***directory->read()));
}

TEST_F(PolicyDirectoryTest, ALinkSwappedInOneStep) {
  fs::create_directories(root / "two");
  write("two/world.yaml", world);
  write("two/deny.yaml", deny);
  fs::create_directory_symlink("one", root / "current");
  const auto directory = open("current/");
  EXPECT_FALSE(isolated(***directory->read()));
  fs::create_directory_symlink("two", root / "next");
  fs::rename(root / "next", root / "current");
  EXPECT_TRUE(announced(*directory));
  EXPECT_TRUE(isolated(***directory->read()));
  write("one/more.yaml", deny);  // no longer ours
  EXPECT_FALSE(directory->read());
  fs::remove(root / "two/deny.yaml");
  EXPECT_TRUE(announced(*directory));
  EXPECT_FALSE(isolated(***directory->read()));
}

// Kubernetes' atomic writer swaps a link and then deletes what it pointed to, file by file: half of a state must never count as one.
TEST_F(PolicyDirectoryTest, AStateThatIsBeingDeletedDoesNotCount) {
  constexpr int rounds = 2000;
  const auto publish = [this](int round) {
    const std::string state = "state" + std::to_string(round);
    fs::create_directory(root / state);
    write(state + "/world.yaml", world);
    write(state + "/deny.yaml", deny);
    fs::create_directory_symlink(root / state, root / "next");
    fs::rename(root / "next", root / "link");
    const fs::path old = root / ("state" + std::to_string(round - 1));
    fs::remove(old / "deny.yaml");
    std::this_thread::sleep_for(std::chrono::microseconds(200));  // put aside in the middle, as a busy machine does it
    fs::remove_all(old);
  };
  publish(0);
  const auto directory = open("link");
  std::atomic<bool> done = false;
  std::jthread publisher([&] {
    for (int round = 1; round < rounds; ++round) publish(round);
    done = true;
  });
  int states = 0;
  while (!done) {
    const auto read = directory->read();
    if (!read || !*read) continue;  // nothing new, or an error: the last good state stays
    ++states;
    ASSERT_TRUE(isolated(***read)) << "a state without its policy, after " << states;
  }
  EXPECT_GE(states, 5);
}

TEST_F(PolicyDirectoryTest, ABadStateIsAnErrorOnceAndAGoodOneCountsAgain) {
  const auto directory = open("one");
  ASSERT_TRUE(*directory->read());
  write("one/deny.yaml",
        "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: deny, namespace: default}\nspec: {podSelektor: {}}\n");
  auto read = directory->read();
  ASSERT_TRUE(read);
  ASSERT_FALSE(*read);
  EXPECT_THAT(read->error().text(), HasSubstr("deny.yaml"));
  EXPECT_FALSE(directory->read());
  write("one/deny.yaml", deny);
  read = directory->read();
  ASSERT_TRUE(read && *read);
  EXPECT_EQ((**read)->generation(), 2U);
}

TEST_F(PolicyDirectoryTest, WithoutItsPodNothingIsCompiled) {
  write("one/world.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n");
  const auto read = open("one")->read();
  ASSERT_TRUE(read);
  ASSERT_FALSE(*read);
  EXPECT_THAT(read->error().text(), HasSubstr("web"));
}

TEST_F(PolicyDirectoryTest, AMissingDirectoryIsAnErrorThatEndsWhenItAppears) {
  const auto directory = open("later");
  ASSERT_FALSE(*directory->read());
  fs::rename(root / "one", root / "later");
  EXPECT_TRUE(announced(*directory));
  const auto read = directory->read();
  ASSERT_TRUE(read && *read);
}

TEST_F(PolicyDirectoryTest, AMissingParentIsAnErrorAtOnce) {
  const auto made = PolicyDirectory::make((root / "no" / "such").string(), {"default", "web"}, settings);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().text(), HasSubstr("does not exist"));
}

}  // namespace
}  // namespace postern
