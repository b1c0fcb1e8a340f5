#include "proxy/task.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace postern {
namespace {

// Suspends until the test resumes it.
struct Gate {
  std::coroutine_handle<> waiting;
  bool await_ready() const { return false; }
  void await_suspend(std::coroutine_handle<> handle) { waiting = handle; }
  void await_resume() const {}
  void open() { std::exchange(waiting, nullptr).resume(); }
};

Task<std::string> answer(Gate& gate, std::string text) {
  co_await gate;
  co_return text + "!";
}
Task<std::unique_ptr<int>> owned() { co_return std::make_unique<int>(7); }
Task<int> broken() {
  throw std::runtime_error("broken");
  co_return 0;
}
Task<void> collect(Gate& gate, std::vector<std::string>& said) {
  said.push_back("begin");
  said.push_back(co_await answer(gate, "hello"));
  const std::unique_ptr<int> seven = co_await owned();
  said.push_back(std::to_string(*seven));
}
Task<void> fails(Gate& gate) {
  co_await gate;
  co_await broken();
}
Task<void> catches(std::string& what) {
  try {
    co_await broken();
  } catch (const std::runtime_error& error) {
    what = error.what();
  }
}
void unexpected(std::exception_ptr) { ADD_FAILURE() << "an exception"; }

TEST(TaskTest, RunsToItsFirstSuspensionAndOnAsItIsResumed) {
  Gate gate;
  std::vector<std::string> said;
  spawn(collect(gate, said), unexpected);
  EXPECT_EQ(said, (std::vector<std::string>{"begin"}));
  gate.open();
  EXPECT_EQ(said, (std::vector<std::string>{"begin", "hello!", "7"}));
}

TEST(TaskTest, ATaskThatIsNotAwaitedDoesNothing) {
  Gate gate;
  std::vector<std::string> said;
  { const Task<void> task = collect(gate, said); }
  EXPECT_TRUE(said.empty());
}

TEST(TaskTest, AnExceptionEndsItAndIsHandedOverOnce) {
  Gate gate;
  int failures = 0;
  spawn(fails(gate), [&failures](std::exception_ptr e) {
    ++failures;
    EXPECT_THROW(std::rethrow_exception(e), std::runtime_error);
  });
  EXPECT_EQ(failures, 0);
  gate.open();
  EXPECT_EQ(failures, 1);
}

TEST(TaskTest, AnExceptionReachesTheAwaiter) {
  std::string what;
  spawn(catches(what), unexpected);
  EXPECT_EQ(what, "broken");
}

Task<int> deep(int levels) {
  if (levels == 0) co_return 0;
  const int below = co_await deep(levels - 1);
  co_return below + 1;
}
Task<void> store(int& into, int levels) { into = co_await deep(levels); }

TEST(TaskTest, NestedTasksGiveTheirValuesUpwards) {
  int levels = 0;
  spawn(store(levels, 200), unexpected);
  EXPECT_EQ(levels, 200);
}

}  // namespace
}  // namespace postern
