#include "proxy/socket.hpp"

#include <gtest/gtest.h>
#include <netinet/tcp.h>

#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

using test::run_until;
using test::TestEnd;

class SocketTest : public testing::Test {
 protected:
  DurationHistogram turns;
  EventLoop loop{turns};
  std::array<std::uint8_t, 16> buffer;
};

TEST_F(SocketTest, AShortReadSavesTheCallThatWouldSayThereIsNoMore) {
  auto [a, b] = test::tcp_pair();
  TestEnd other(b);
  Socket socket(loop, a, true);
  loop.run_once(std::chrono::milliseconds(5));
  other.send("hello");
  ASSERT_TRUE(run_until(loop, [&] { return socket.watch().readable; }));
  EXPECT_EQ(socket.read(buffer).bytes, 5U);
  EXPECT_FALSE(socket.watch().readable);
  EXPECT_EQ(socket.read(buffer).status, IoStatus::would_block);
}

TEST_F(SocketTest, AnEndBehindTheBytesIsNotMissed) {
  auto [a, b] = test::tcp_pair();
  TestEnd other(b);
  Socket socket(loop, a, true);
  other.send("hello");
  other.end();
  ASSERT_TRUE(run_until(loop, [&] { return socket.watch().hung_up; }));
  EXPECT_EQ(socket.read(buffer).bytes, 5U);
  EXPECT_EQ(socket.read(buffer).status, IoStatus::end);
}

TEST_F(SocketTest, WithinThePodNothingIsPaced) {
  auto [a, b] = test::tcp_pair();
  TestEnd other(b);
  Socket socket(loop, a, true);
  socket.set_same_pod();
  std::array<char, 16> name{};
  socklen_t length = name.size();
  ASSERT_EQ(getsockopt(a, IPPROTO_TCP, TCP_CONGESTION, name.data(), &length), 0);
  EXPECT_STREQ(name.data(), "reno");
}

TEST_F(SocketTest, PeekLeavesTheBytes) {
  auto [a, b] = test::tcp_pair();
  TestEnd other(b);
  Socket socket(loop, a, true);
  other.send("hello");
  ASSERT_TRUE(run_until(loop, [&] { return socket.peek(buffer).status == IoStatus::ok; }));
  EXPECT_EQ(socket.peek(buffer).bytes, 5U);
  EXPECT_EQ(socket.read(buffer).bytes, 5U);
}

TEST_F(SocketTest, AResetIsToldFromAnEnd) {
  for (const bool reset : {true, false}) {
    auto [a, b] = test::tcp_pair();
    TestEnd other(b);
    Socket socket(loop, a, true);
    reset ? other.abort() : other.shut();
    ASSERT_TRUE(run_until(loop, [&] { return socket.watch().hung_up; }));
    EXPECT_EQ(socket.watch().failed, reset);
    socket.watch().readable = true;
    EXPECT_EQ(socket.read(buffer).status, reset ? IoStatus::reset : IoStatus::end);
  }
}

TEST_F(SocketTest, AbortClosesWithAReset) {
  for (const bool abort : {true, false}) {
    auto [a, b] = test::tcp_pair();
    TestEnd other(b);
    {
      Socket socket(loop, a, true);
      if (abort) socket.abort();
    }
    other.receive();
    EXPECT_EQ(other.reset, abort);
    EXPECT_EQ(other.ended, !abort);
  }
}

TEST_F(SocketTest, AReleasedDescriptorLivesOnWithoutTheLoop) {
  auto [a, b] = test::tcp_pair();
  TestEnd other(b);
  std::unique_ptr<Socket> socket = std::make_unique<Socket>(loop, a, true);
  TestEnd released(socket->release());
  socket.reset();
  other.send("still here");
  loop.run_once(std::chrono::milliseconds(5));
  EXPECT_EQ(released.receive(), "still here");
}

TEST_F(SocketTest, ListenersPassTheirOptionsOn) {
  Config config;
  config.tcp.keepalive_time = std::chrono::seconds(33);
  TestEnd listener(open_listener({IpAddress::parse("127.0.0.1").value(), Port{0}}, config));
  ASSERT_GE(listener.fd(), 0);
  bool connected = false;
  TestEnd client(open_client_socket(local_address(listener.fd()), config, nullptr, {}, connected));
  EXPECT_TRUE(connected) << "over loopback the handshake is over at once";
  TestEnd accepted(accept(listener.fd(), nullptr, nullptr));
  for (const TestEnd* end : {&client, &accepted}) {
    const auto option = [end](int level, int name) {
      int value = 0;
      socklen_t length = sizeof value;
      getsockopt(end->fd(), level, name, &value, &length);
      return value;
    };
    EXPECT_EQ(option(IPPROTO_TCP, TCP_NODELAY), 1);
    EXPECT_EQ(option(SOL_SOCKET, SO_KEEPALIVE), 1);
    EXPECT_EQ(option(IPPROTO_TCP, TCP_KEEPIDLE), 33);
  }
}

TEST_F(SocketTest, AnAddressWhereNobodyListensIsRefusedAtOnce) {
  Config config;
  SocketAddress nobody;
  {
    TestEnd listener(open_listener({IpAddress::parse("127.0.0.1").value(), Port{0}}, config));
    nobody = local_address(listener.fd());
  }
  bool connected = false;
  EXPECT_EQ(open_client_socket(nobody, config, nullptr, {}, connected), -1);
  EXPECT_EQ(errno, ECONNREFUSED);
}

}  // namespace
}  // namespace postern
