#include "proxy/plain_relay.hpp"

#include <gtest/gtest.h>

#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;
using test::run_until;
using test::TestEnd;

// client <-> app socket | relay | peer socket <-> server
class PlainRelayTest : public testing::Test {
 protected:
  PlainRelayTest() {
    const auto [client, app] = test::tcp_pair();
    const auto [server, peer] = test::tcp_pair();
    client_ = std::make_unique<TestEnd>(client);
    server_ = std::make_unique<TestEnd>(server);
    app_ = std::make_unique<Socket>(loop, app, true);
    peer_ = std::make_unique<Socket>(loop, peer, true);
  }
  void start(std::optional<milliseconds> guard = {}) {
    relay_ = std::make_unique<PlainRelay>(loop, buffers, pipes, *app_, *peer_, milliseconds(0), guard);
    test::start_relay(*relay_);
  }
  std::string arrives(TestEnd& end, std::size_t bytes) {
    std::string got;
    run_until(loop, [&] { return (got += end.receive()).size() >= bytes || end.ended || end.reset; });
    return got;
  }
  bool over() {
    return run_until(loop, [&] { return test::is_over(*relay_); });
  }
  void close_all() {
    relay_.reset();
    app_.reset();
    peer_.reset();
  }

  DurationHistogram turns;
  EventLoop loop{turns};
  WorkerBuffers buffers;
  PipePool pipes;
  std::unique_ptr<TestEnd> client_, server_;
  std::unique_ptr<Socket> app_, peer_;
  std::unique_ptr<PlainRelay> relay_;
};

TEST_F(PlainRelayTest, HalfCloseAndACleanEnd) {
  start();
  client_->send("question");
  client_->end();
  EXPECT_EQ(arrives(*server_, 8), "question");
  EXPECT_TRUE(run_until(loop, [&] { return server_->receive().empty() && server_->ended; }));
  server_->send("answer");
  server_->end();
  EXPECT_TRUE(over());
  EXPECT_EQ(relay_->end().reason, Reason::finished);
  EXPECT_TRUE(relay_->end().by_app);
  EXPECT_EQ(relay_->from_app_bytes(), 8U);
  EXPECT_EQ(relay_->to_app_bytes(), 6U);
  close_all();
  EXPECT_EQ(arrives(*client_, 6), "answer");
  EXPECT_FALSE(client_->reset);
}

TEST_F(PlainRelayTest, AResetReachesTheOtherEnd) {
  start();
  server_->send("x");
  EXPECT_EQ(arrives(*client_, 1), "x");
  server_->abort();
  EXPECT_TRUE(over());
  EXPECT_EQ(relay_->end().reason, Reason::reset);
  EXPECT_FALSE(relay_->end().by_app);
  close_all();
  arrives(*client_, 1);
  EXPECT_TRUE(client_->reset);
}

TEST_F(PlainRelayTest, WhatIsNotFinishedEndsWithAReset) {
  start();
  client_->end();
  EXPECT_TRUE(run_until(loop, [&] { return server_->receive().empty() && server_->ended; }));
  close_all();  // as when the process is killed
  arrives(*client_, 1);
  EXPECT_TRUE(client_->reset);
}

TEST_F(PlainRelayTest, UrgentDataIsPassedBy) {
  start();
  client_->send("before");
  send(client_->fd(), "!", 1, MSG_OOB);
  client_->send("after");
  EXPECT_EQ(arrives(*server_, 11), "beforeafter");
}

TEST_F(PlainRelayTest, AReaderThatStopsHoldsUpTheSender) {
  start();
  const std::string block(64 << 10, 'x');
  std::size_t taken = 0;
  for (int quiet = 0; quiet < 20;) {
    const ssize_t n = send(client_->fd(), block.data(), block.size(), MSG_NOSIGNAL);
    if (n > 0) taken += static_cast<std::size_t>(n);
    quiet = n > 0 ? 0 : quiet + 1;
    loop.run_once(milliseconds(2));
  }
  client_->end();
  std::size_t got = 0;
  EXPECT_TRUE(run_until(loop, [&] { return (got += server_->receive().size()) >= taken && server_->ended; }));
  EXPECT_EQ(got, taken);
}

TEST_F(PlainRelayTest, TheGuardHoldsWhatMayBecomeAClientHelloUntilItsDeadline) {
  start(milliseconds(50));
  server_->send("banner");  // the other direction is not held up
  EXPECT_EQ(arrives(*client_, 6), "banner");
  client_->send(std::string("\x16\x03\x01\x02\x00", 5));
  loop.run_once(milliseconds(5));
  EXPECT_EQ(server_->receive(), "");
  EXPECT_EQ(arrives(*server_, 5).size(), 5U);
  client_->send("1");
  EXPECT_EQ(arrives(*server_, 1), "1") << "single bytes are announced again";
}

TEST_F(PlainRelayTest, TheGuardLetsEverythingElsePassAtOnce) {
  start(std::chrono::minutes(1));
  client_->send("GET / HTTP/1.1\r\n");
  EXPECT_EQ(arrives(*server_, 16), "GET / HTTP/1.1\r\n");
}

TEST_F(PlainRelayTest, TheGuardRefusesAPosternClientHello) {
  start(std::chrono::minutes(1));
  test::Identities identities;
  const SocketAddress at{IpAddress::parse("10.0.0.2").value(), Port{80}};
  TlsStream hello(loop, buffers.gather, client_->release(), true, identities.web, identities.web->new_client(at, true));
  const auto shake = [](TlsStream& stream) -> Task<void> { co_await stream.handshake(false); };
  spawn(shake(hello), [](std::exception_ptr e) { std::rethrow_exception(e); });
  EXPECT_TRUE(over());
  EXPECT_EQ(relay_->end().reason, Reason::stale_record);
  EXPECT_EQ(server_->receive(), "");
  hello.socket().cancel();
  loop.run_once(milliseconds(5));
}

TEST_F(PlainRelayTest, PipesAreTakenAgain) {
  const auto first = pipes.take();
  ASSERT_TRUE(first);
  pipes.give_back(*first);
  const auto second = pipes.take();
  EXPECT_EQ(first->read_end, second->read_end);
  PipePool::discard(*second);
}

}  // namespace
}  // namespace postern
