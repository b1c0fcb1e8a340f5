#include "proxy/relay.hpp"

#include <gtest/gtest.h>

#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;
using test::run_until;
using test::TestEnd;

// Two applications, two relays and an mTLS connection between these: app <-> outbound relay <=mTLS=> inbound relay <-> app.
class RelayTest : public testing::TestWithParam<bool> {
 protected:
  RelayTest() {
    const auto [client, outbound] = test::tcp_pair();
    const auto [server, inbound] = test::tcp_pair();
    client_ = std::make_unique<TestEnd>(client);
    server_ = std::make_unique<TestEnd>(server);
    outbound_app_ = std::make_unique<Socket>(loop, outbound, true);
    inbound_app_ = std::make_unique<Socket>(loop, inbound, true);
  }
  void start(milliseconds idle = milliseconds(0)) {
    outbound_ = std::make_unique<TlsRelay>(loop, buffers, *peers.client, *outbound_app_, idle);
    inbound_ = std::make_unique<TlsRelay>(loop, buffers, *peers.server, *inbound_app_, idle);
    test::start_relay(*outbound_);
    test::start_relay(*inbound_);
  }
  bool over(const std::unique_ptr<TlsRelay>& relay) {
    return run_until(loop, [&] { return test::is_over(*relay); });
  }
  std::string arrives(TestEnd& end, std::size_t bytes) {
    std::string got;
    run_until(loop, [&] { return (got += end.receive()).size() >= bytes || end.ended || end.reset; });
    return got;
  }
  // Relays and sockets gone, as at the end of a connection's coroutine.
  void drop() {
    outbound_.reset();
    inbound_.reset();
    outbound_app_.reset();
    inbound_app_.reset();
  }

  DurationHistogram turns;
  EventLoop loop{turns};
  WorkerBuffers buffers;
  test::Identities identities;
  test::PeerPair peers{loop, buffers.gather, identities, GetParam()};
  std::unique_ptr<TestEnd> client_, server_;
  std::unique_ptr<Socket> outbound_app_, inbound_app_;
  std::unique_ptr<TlsRelay> outbound_, inbound_;
};

TEST_P(RelayTest, BothEndsAgreeOnWhoTheyAre) {
  EXPECT_EQ(peers.client->framed, GetParam());
  EXPECT_EQ(peers.server->framed, GetParam());
  EXPECT_EQ(peers.client->identity->id.text(), test::Identities::id("api"));
  EXPECT_EQ(peers.server->identity->id.text(), test::Identities::id("web"));
  EXPECT_EQ(peers.client->connection_id, peers.server->connection_id);
}

TEST_P(RelayTest, HalfCloseEitherWay) {
  for (const bool client_first : {true, false}) {
    SCOPED_TRACE(client_first);
    if (!GetParam() && !client_first) break;  // raw bytes have one stream only
    if (!client_first) {
      const auto [client, outbound] = test::tcp_pair();
      const auto [server, inbound] = test::tcp_pair();
      client_ = std::make_unique<TestEnd>(client);
      server_ = std::make_unique<TestEnd>(server);
      drop();
      outbound_app_ = std::make_unique<Socket>(loop, outbound, true);
      inbound_app_ = std::make_unique<Socket>(loop, inbound, true);
    }
    start();
    TestEnd& first = client_first ? *client_ : *server_;
    TestEnd& second = client_first ? *server_ : *client_;
    first.send("question");
    first.end();
    EXPECT_EQ(arrives(second, 8), "question");
    EXPECT_TRUE(run_until(loop, [&] { return second.receive().empty() && second.ended; }));
    EXPECT_FALSE(test::is_over(*outbound_));
    second.send("answer");
    EXPECT_EQ(arrives(first, 6), "answer");
    second.end();
    EXPECT_TRUE(over(outbound_) && over(inbound_));
    for (const TlsRelay* relay : {outbound_.get(), inbound_.get()}) {
      EXPECT_EQ(relay->end().reason, Reason::finished);
      EXPECT_FALSE(relay->end().by_proxy);
    }
    EXPECT_EQ(outbound_->end().by_app, client_first);
    EXPECT_EQ(inbound_->end().by_app, !client_first);
    EXPECT_EQ(outbound_->from_app_bytes(), client_first ? 8U : 6U);
    EXPECT_EQ(inbound_->to_app_bytes(), outbound_->from_app_bytes());
    EXPECT_EQ(inbound_->from_app_bytes(), outbound_->to_app_bytes());
    EXPECT_TRUE(peers.client->keeps_nothing() && peers.client->reader.at_boundary());
  }
}

TEST_P(RelayTest, ManyBytesBothWaysKeepTheirOrder) {
  start();
  std::string text;
  for (int i = 0; text.size() < 3'000'000; ++i) text += std::to_string(i) + ' ';
  std::array<std::size_t, 2> sent{};
  std::array<std::string, 2> got;
  const std::array<TestEnd*, 2> ends{client_.get(), server_.get()};
  EXPECT_TRUE(run_until(loop, [&] {
    for (std::size_t i = 0; i < 2; ++i) {
      const ssize_t n = send(ends[i]->fd(), text.data() + sent[i], text.size() - sent[i], MSG_NOSIGNAL);
      if (n > 0) sent[i] += static_cast<std::size_t>(n);
      got[i] += ends[i]->receive();
    }
    return got[0].size() >= text.size() && got[1].size() >= text.size();
  }));
  EXPECT_TRUE(got[0] == text && got[1] == text);
}

TEST_P(RelayTest, AnEndBehindAsMuchAsOneReadTakes) {
  constexpr std::size_t one_read = WorkerBuffers::frames * frame_payload_max;
  std::string text;
  for (int i = 0; text.size() < WorkerBuffers::frames * frame_bytes_max + 1; ++i) text += std::to_string(i) + ' ';
  for (const std::size_t size : {frame_payload_max - 1, frame_payload_max, frame_payload_max + 1, frame_bytes_max, one_read - 1, one_read,
                                 one_read + 1, WorkerBuffers::frames * frame_bytes_max}) {
    SCOPED_TRACE(size);
    drop();
    test::PeerPair fresh(loop, buffers.gather, identities, GetParam());
    std::swap(peers.client, fresh.client);
    std::swap(peers.server, fresh.server);
    const auto [client, outbound] = test::tcp_pair();
    const auto [server, inbound] = test::tcp_pair();
    client_ = std::make_unique<TestEnd>(client);
    server_ = std::make_unique<TestEnd>(server);
    outbound_app_ = std::make_unique<Socket>(loop, outbound, true);
    inbound_app_ = std::make_unique<Socket>(loop, inbound, true);
    const int room = 400 << 10;  // all of it, and the end, are there before the relay looks
    setsockopt(client, SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
    setsockopt(outbound, SOL_SOCKET, SO_RCVBUF, &room, sizeof room);
    client_->send(std::string_view(text).substr(0, size));
    client_->end();
    start();
    std::string got;
    run_until(loop, [&] { return (got += server_->receive()).size() >= size && server_->ended; });
    EXPECT_TRUE(got == text.substr(0, size));
    EXPECT_TRUE(server_->ended);
    EXPECT_FALSE(server_->reset);
  }
}

TEST_P(RelayTest, AResetIsAResetAtTheOtherEnd) {
  start();
  client_->send("x");
  EXPECT_EQ(arrives(*server_, 1), "x");
  client_->abort();
  EXPECT_TRUE(over(outbound_));
  EXPECT_EQ(outbound_->end().reason, Reason::reset);
  EXPECT_TRUE(outbound_->end().by_app);
  outbound_.reset();
  peers.client.reset();
  EXPECT_TRUE(over(inbound_));
  EXPECT_EQ(inbound_->end().reason, Reason::reset);
  EXPECT_FALSE(inbound_->end().by_app);
}

TEST_P(RelayTest, ATcpEndWithoutEndIsTruncated) {
  start();
  ::shutdown(peers.client->tls.socket().fd(), SHUT_WR);
  EXPECT_TRUE(over(inbound_));
  EXPECT_EQ(inbound_->end().reason, Reason::truncated);
}

TEST_P(RelayTest, StoppedFromOutside) {
  start();
  inbound_->stop(Reason::policy_changed);
  inbound_->stop(Reason::drained);  // the first one counts
  EXPECT_TRUE(over(inbound_));
  EXPECT_EQ(inbound_->end().reason, Reason::policy_changed);
  EXPECT_TRUE(inbound_->end().by_proxy);
  if (!GetParam()) return;
  EXPECT_TRUE(over(outbound_));
  EXPECT_EQ(outbound_->end().reason, Reason::policy_changed);
  EXPECT_FALSE(outbound_->end().by_proxy);
}

TEST_P(RelayTest, IdleForTooLong) {
  start(milliseconds(30));
  for (int i = 0; i < 10; ++i) {  // a byte now and then keeps it
    client_->send("x");
    EXPECT_EQ(arrives(*server_, 1), "x");
    loop.run_once(milliseconds(10));
  }
  EXPECT_FALSE(test::is_over(*outbound_));
  EXPECT_TRUE(over(outbound_) && over(inbound_));
  EXPECT_TRUE(outbound_->end().reason == Reason::idle || inbound_->end().reason == Reason::idle);
}

TEST_P(RelayTest, AReaderThatStopsHoldsUpTheSender) {
  start();
  const std::string block(64 << 10, 'x');
  std::size_t taken = 0;
  for (int quiet = 0; quiet < 20;) {
    const ssize_t n = send(client_->fd(), block.data(), block.size(), MSG_NOSIGNAL);
    if (n > 0) taken += static_cast<std::size_t>(n);
    quiet = n > 0 ? 0 : quiet + 1;
    loop.run_once(milliseconds(2));
  }
  EXPECT_LT(inbound_->to_app_bytes(), 16U << 20);
  client_->end();
  std::size_t got = 0;
  EXPECT_TRUE(run_until(loop, [&] { return (got += server_->receive().size()) >= taken && server_->ended; }));
  EXPECT_EQ(got, taken);
}

TEST_P(RelayTest, StuckBytesDoNotDelayAReset) {
  start();
  const std::string block(64 << 10, 'x');
  for (int quiet = 0; quiet < 20;) {
    quiet = send(client_->fd(), block.data(), block.size(), MSG_NOSIGNAL) > 0 ? 0 : quiet + 1;
    loop.run_once(milliseconds(2));
  }
  client_->abort();
  EXPECT_TRUE(over(outbound_));
  outbound_.reset();
  peers.client.reset();
  EXPECT_TRUE(over(inbound_)) << "the far relay waits for an application that does not read";
  EXPECT_EQ(inbound_->end().reason, Reason::reset);
}

INSTANTIATE_TEST_SUITE_P(Carried, RelayTest, testing::Values(true, false),
                         [](const auto& carried) { return carried.param ? "ByFrames" : "ByRawBytes"; });

// One relay, and the test at the other end of its mTLS connection.
class FramedRelayTest : public RelayTest {
 protected:
  // What the relay makes of these frames.
  RelayEnd after(std::span<const std::uint8_t> frames) {
    inbound_ = std::make_unique<TlsRelay>(loop, buffers, *peers.server, *inbound_app_, milliseconds(0));
    test::start_relay(*inbound_);
    EXPECT_TRUE(peers.client->tls.write(frames) && peers.client->tls.flush());
    EXPECT_TRUE(over(inbound_));
    return inbound_->end();
  }
};

TEST_P(FramedRelayTest, FramesThatAStreamMayNotHave) {
  using Bytes = std::vector<std::uint8_t>;
  const std::vector<Bytes> wrong{
      {1, 0, 0, 0}, {2, 0, 0, 2, 0, 0}, {3, 0, 0, 0},     {4, 0, 0, 0, 4, 0, 0, 0}, {4, 0, 0, 0, 3, 0, 0, 1, 'x'}, {4, 0, 0, 0, 1, 0, 0, 0},
      {9, 0, 0, 0}, {3, 0, 0xFF, 0xFF}, {3, 1, 0, 1, 'x'}};
  for (const Bytes& frames : wrong) {
    SCOPED_TRACE(testing::PrintToString(frames));
    RelayTest::drop();
    const auto [server, inbound] = test::tcp_pair();
    server_ = std::make_unique<TestEnd>(server);
    inbound_app_ = std::make_unique<Socket>(loop, inbound, true);
    peers = test::PeerPair(loop, buffers.gather, identities, true);
    EXPECT_EQ(after(frames).reason, Reason::protocol_error);
  }
}

TEST_P(FramedRelayTest, AResetFrameSaysWhy) {
  const std::array<std::uint8_t, 5> frames{5, 0, 0, 1, static_cast<std::uint8_t>(ResetCode::drained)};
  const RelayEnd end = after(frames);
  EXPECT_EQ(end.reason, Reason::reset);
  EXPECT_EQ(end.detail, "drained");
}

TEST_P(FramedRelayTest, WhatFollowsTheEndIsKeptForTheNextStream) {
  server_->end();
  const std::array<std::uint8_t, 14> frames{3, 0, 0, 2, 'h', 'i', 4, 0, 0, 0, 1, 0, 0, 0};
  inbound_ = std::make_unique<TlsRelay>(loop, buffers, *peers.server, *inbound_app_, milliseconds(0));
  test::start_relay(*inbound_);
  for (int i = 0; i < 10; ++i) loop.run_once(milliseconds(2));  // our END is out
  EXPECT_TRUE(peers.client->tls.write(frames) && peers.client->tls.flush());
  EXPECT_TRUE(over(inbound_));
  EXPECT_EQ(inbound_->end().reason, Reason::finished);
  EXPECT_FALSE(peers.server->keeps_nothing());
  std::array<std::uint8_t, 16> next;
  const IoResult got = peers.server->read(next);
  EXPECT_EQ(got.bytes, 4U);
  EXPECT_EQ(next[0], 1);
  EXPECT_TRUE(peers.server->keeps_nothing());
}

INSTANTIATE_TEST_SUITE_P(Carried, FramedRelayTest, testing::Values(true));

}  // namespace
}  // namespace postern
