#include "proxy/access_log.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "base/document.hpp"
#include "proxy/access_log_queue.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;

// ---- the queue

TEST(AccessLogQueue, FirstInFirstOutWithinItsBound) {
  AccessLog::Queue queue{100};
  std::uint64_t pushed = 0;
  std::uint64_t popped = 0;
  const auto push = [&] {
    AccessRecord record;
    record.bytes_sent = pushed;
    if (!queue.push(std::move(record))) return false;
    ++pushed;
    return true;
  };
  EXPECT_EQ(queue.front(), nullptr);
  for (int round = 0; round < 20; ++round) {
    while (push()) {
    }
    EXPECT_EQ(pushed - popped, 100U);
    for (int i = 0; i < 37 + round; ++i) {
      ASSERT_NE(queue.front(), nullptr);
      ASSERT_EQ(queue.front()->bytes_sent, popped++);
      queue.pop();
    }
  }
  while (queue.front() != nullptr) {
    ASSERT_EQ(queue.front()->bytes_sent, popped++);
    queue.pop();
  }
  EXPECT_EQ(popped, pushed);
}

TEST(AccessLogQueue, LetsGoOfWhatARecordKeepsAlive) {
  const auto identity = std::make_shared<const PeerIdentity>();
  {
    AccessLog::Queue queue{100};
    for (int i = 0; i < 80; ++i) {
      AccessRecord record;
      record.peer_identity = identity;
      ASSERT_TRUE(queue.push(std::move(record)));
    }
    EXPECT_EQ(identity.use_count(), 81);
    queue.pop();
    EXPECT_EQ(identity.use_count(), 80);
  }
  EXPECT_EQ(identity.use_count(), 1);  // the rest goes with the queue
}

// ---- the log

class AccessLogTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "postern-access-log-XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    config_.access_log.path = (folder_ / "access.log").string();
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::unique_ptr<AccessLog> open(std::size_t workers = 1) {
    counters_.clear();
    std::vector<WorkerCounters*> pointers;
    for (std::size_t i = 0; i < workers; ++i) {
      counters_.push_back(std::make_unique<WorkerCounters>());
      pointers.push_back(counters_.back().get());
    }
    auto log = AccessLog::open(config_, pointers);
    EXPECT_TRUE(log) << log.error().text();
    return std::move(log).value();
  }
  std::uint64_t dropped() const {
    std::uint64_t sum = 0;
    for (const auto& counters : counters_) sum += counters->access_records_dropped.value();
    return sum;
  }
  const std::string& path() const { return config_.access_log.path; }

  static AccessRecord numbered(std::uint64_t number, std::uint16_t worker = 0) {
    AccessRecord record;
    record.source = {IpAddress::v4({10, 0, 0, 1}), Port{static_cast<std::uint16_t>(worker + 1)}};
    record.bytes_sent = number;
    return record;
  }
  static std::string read(const std::string& path) {
    std::ostringstream content;
    content << std::ifstream(path).rdbuf();
    return content.str();
  }
  static std::vector<std::string> lines_of(const std::string& text) {
    std::vector<std::string> lines;
    std::istringstream stream{text};
    for (std::string line; std::getline(stream, line);) lines.push_back(line);
    return lines;
  }
  // Every line is one whole JSON object, and the text ends with a line's end.
  static void expect_whole_lines(const std::string& text) {
    EXPECT_TRUE(text.empty() || text.back() == '\n');
    for (const auto& line : lines_of(text)) {
      const auto parsed = parse_json(line, "line");
      ASSERT_TRUE(parsed) << parsed.error().text() << "\n" << line;
    }
  }
  static bool eventually(const std::function<bool()>& condition) {
    for (const auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end;) {
      if (condition()) return true;
      std::this_thread::sleep_for(2ms);
    }
    return condition();
  }

  std::filesystem::path folder_;
  Config config_;
  std::vector<std::unique_ptr<WorkerCounters>> counters_;
};

TEST_F(AccessLogTest, WritesEachRecordSoon) {
  const auto log = open();
  for (std::uint64_t i = 0; i < 3; ++i) {
    log->submit(0, numbered(i));
    // Longer than it lingers, so that every second one finds it asleep.
    EXPECT_TRUE(eventually([&] { return lines_of(read(path())).size() == i + 1; }));
    std::this_thread::sleep_for(i % 2 == 0 ? 30ms : 0ms);
  }
  expect_whole_lines(read(path()));
  EXPECT_EQ(dropped(), 0U);
}

// No wake-up is ever lost, and each worker's records stay in order. Run under ThreadSanitizer, too.
TEST_F(AccessLogTest, ManyWorkersLoseNothing) {
  constexpr std::size_t workers = 4;
  constexpr std::uint64_t records = 2'000;
  {
    const auto log = open(workers);
    std::vector<std::thread> threads;
    for (std::size_t worker = 0; worker < workers; ++worker) {
      threads.emplace_back([&log, worker] {
        for (std::uint64_t i = 0; i < records; ++i) {
          log->submit(worker, numbered(i, static_cast<std::uint16_t>(worker)));
          if (i % 400 == worker) std::this_thread::sleep_for(7ms);  // about when it falls asleep
        }
      });
    }
    for (auto& thread : threads) thread.join();
    EXPECT_TRUE(eventually([&] { return lines_of(read(path())).size() == workers * records; }));  // before anything flushes it
  }
  EXPECT_EQ(dropped(), 0U);
  std::array<std::uint64_t, workers> next{};
  for (const auto& line : lines_of(read(path()))) {
    const auto value = [&line](const std::string& name) { return std::stoul(line.substr(line.find(name) + name.size())); };
    const std::size_t worker = value("\"source.port\":") - 1;
    ASSERT_LT(worker, workers);
    ASSERT_EQ(value("\"bytes_sent\":"), next.at(worker)++);
  }
}

TEST_F(AccessLogTest, EndingItWritesWhatIsQueued) {
  {
    const auto log = open();
    for (std::uint64_t i = 0; i < 5'000; ++i) log->submit(0, numbered(i));
  }
  EXPECT_EQ(lines_of(read(path())).size(), 5'000U);
  expect_whole_lines(read(path()));
}

TEST_F(AccessLogTest, NoPathMeansNoLog) {
  config_.access_log.path.clear();
  const auto log = open();
  log->submit(0, numbered(1));
  log->reopen();
  EXPECT_EQ(dropped(), 0U);
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

TEST_F(AccessLogTest, APathThatCannotBeOpenedIsNamed) {
  config_.access_log.path = (folder_ / "missing" / "access.log").string();
  WorkerCounters counters;
  const auto log = AccessLog::open(config_, {&counters});
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().text(), HasSubstr(config_.access_log.path));
  EXPECT_THAT(log.error().text(), HasSubstr("No such file or directory"));
}

TEST_F(AccessLogTest, ReopenFollowsARotation) {
  const auto log = open();
  const std::string rotated = path() + ".1";
  log->submit(0, numbered(1));
  ASSERT_TRUE(eventually([&] { return lines_of(read(path())).size() == 1; }));
  std::filesystem::rename(path(), rotated);
  log->submit(0, numbered(2));
  ASSERT_TRUE(eventually([&] { return lines_of(read(rotated)).size() == 2; }));
  log->reopen();
  ASSERT_TRUE(eventually([&] { return std::filesystem::exists(path()); }));
  log->submit(0, numbered(3));
  EXPECT_TRUE(eventually([&] { return lines_of(read(path())).size() == 1; }));
  EXPECT_EQ(lines_of(read(rotated)).size(), 2U);
}

TEST_F(AccessLogTest, AFailedReopenKeepsTheOldFile) {
  const auto log = open();
  const std::string moved = (folder_ / "moved").string();
  std::filesystem::rename(path(), moved);
  std::filesystem::create_directory(path());
  log->reopen();
  log->submit(0, numbered(1));
  EXPECT_TRUE(eventually([&] { return lines_of(read(moved)).size() == 1; }));
}

// A named pipe whose reader can be slow, or go away.
class Pipe {
 public:
  explicit Pipe(const std::string& path) {
    EXPECT_EQ(::mkfifo(path.c_str(), 0600), 0);
    fd_ = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  ~Pipe() { close(); }
  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  // What is there now.
  std::string read() const {
    std::string text;
    std::array<char, 4096> buffer{};
    for (::ssize_t got = 0; (got = ::read(fd_, buffer.data(), buffer.size())) > 0;)
      text.append(buffer.data(), static_cast<std::size_t>(got));
    return text;
  }

 private:
  int fd_ = -1;
};

TEST_F(AccessLogTest, ASlowReaderBlocksNobodyElse) {
  Pipe pipe{path()};
  config_.access_log.queue_records = 500;
  std::string text;
  constexpr std::uint64_t records = 20'000;
  {
    const auto log = open();
    const auto begin = std::chrono::steady_clock::now();
    for (std::uint64_t i = 0; i < records; ++i) log->submit(0, numbered(i));  // nobody reads
    EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
    EXPECT_GT(dropped(), 10'000U);
    // Once somebody reads, what was queued comes, and what follows.
    const std::uint64_t kept = records - dropped();
    const auto seen = [&](std::size_t count) {
      text += pipe.read();
      return static_cast<std::size_t>(std::count(text.begin(), text.end(), '\n')) >= count;
    };
    EXPECT_TRUE(eventually([&] { return seen(kept); }));
    log->submit(0, numbered(records));
    EXPECT_TRUE(eventually([&] { return seen(kept + 1); }));
  }
  EXPECT_EQ(lines_of(text).size() + dropped(), records + 1);
  expect_whole_lines(text);
}

TEST_F(AccessLogTest, AStuckReaderHoldsTheEndForTwoSecondsAtMost) {
  Pipe pipe{path()};
  auto log = open();
  constexpr std::uint64_t records = 2'000;
  for (std::uint64_t i = 0; i < records; ++i) log->submit(0, numbered(i));
  const auto begin = std::chrono::steady_clock::now();
  log.reset();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  const std::string text = pipe.read();
  expect_whole_lines(text);
  EXPECT_EQ(lines_of(text).size() + dropped(), records);
  EXPECT_GT(dropped(), 0U);
}

TEST_F(AccessLogTest, AReaderThatIsGoneIsCountedAndEndsNothing) {
  Pipe pipe{path()};
  const auto log = open();
  pipe.close();
  log->submit(0, numbered(1));
  EXPECT_TRUE(eventually([&] { return dropped() == 1; }));  // and SIGPIPE did not end the process
}

TEST_F(AccessLogTest, APipeThatNobodyReadsIsRefusedAtTheStart) {
  { Pipe pipe{path()}; }
  WorkerCounters counters;
  const auto log = AccessLog::open(config_, {&counters});
  ASSERT_FALSE(log);
  EXPECT_THAT(log.error().text(), HasSubstr("nobody reads"));
}

// Standard output is a blocking pipe that others may write to, as in a container with 2>&1.
TEST_F(AccessLogTest, StandardOutputThatBlocks) {
  config_.access_log.path = std::string("-");
  std::array<int, 2> ends{};
  ASSERT_EQ(::pipe2(ends.data(), O_CLOEXEC), 0);
  const int saved = ::dup(STDOUT_FILENO);
  std::fflush(stdout);
  ASSERT_EQ(::dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
  auto log = open();
  constexpr std::uint64_t records = 1'000;
  for (std::uint64_t i = 0; i < records; ++i) log->submit(0, numbered(i));
  const auto begin = std::chrono::steady_clock::now();
  log.reset();  // with a full pipe that nobody reads
  const auto took = std::chrono::steady_clock::now() - begin;
  ASSERT_EQ(::dup2(saved, STDOUT_FILENO), STDOUT_FILENO);
  ::close(saved);
  ::close(ends[1]);
  std::string text;
  std::array<char, 4096> buffer{};
  for (::ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;)
    text.append(buffer.data(), static_cast<std::size_t>(got));
  ::close(ends[0]);
  EXPECT_LT(took, 5s);
  expect_whole_lines(text);
  EXPECT_GT(lines_of(text).size(), 50U);
  EXPECT_EQ(lines_of(text).size() + dropped(), records);
}

// A file that cannot grow (a full disk, a quota, a limit) loses records; a line that has begun is finished once it can.
TEST_F(AccessLogTest, AFullDiskLosesRecordsButTearsNoLine) {
  ::rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto limited = [&before](::rlim_t bytes) {
    ::rlimit limit = before;
    limit.rlim_cur = bytes;
    return ::setrlimit(RLIMIT_FSIZE, &limit) == 0;
  };
  auto log = open();
  ASSERT_TRUE(limited(1'000));  // in the middle of a line; the log's thread blocks the SIGXFSZ that goes with it
  for (std::uint64_t i = 0; i < 10; ++i) log->submit(0, numbered(i));
  // Nine lines are whole or lost; the tenth has begun.
  const auto whole = [&] { return lines_of(read(path())).size() - 1; };
  const bool counted = eventually([&] { return std::filesystem::file_size(path()) == 1'000 && whole() + dropped() == 9; });
  const std::uint64_t lost = dropped();
  ASSERT_TRUE(limited(before.rlim_cur));
  EXPECT_TRUE(counted);
  log->submit(0, numbered(10));
  EXPECT_TRUE(eventually([&] { return read(path()).find("\"bytes_sent\":10,") != std::string::npos; }));
  log.reset();
  expect_whole_lines(read(path()));
  EXPECT_EQ(lines_of(read(path())).size(), 11 - lost);
  EXPECT_EQ(dropped(), lost);
}

}  // namespace
}  // namespace postern
