#include "proxy/tls_stream.hpp"

#include <gtest/gtest.h>

#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;
using test::run_until;

class TlsStreamTest : public testing::Test {
 protected:
  std::string read_all(TlsStream& stream, std::size_t bytes, IoStatus* last = nullptr) {
    std::string out;
    run_until(loop, [&] {
      std::array<std::uint8_t, 4096> buffer;
      IoResult got = stream.read(buffer);
      while (got.status == IoStatus::ok) {
        out.append(buffer.begin(), buffer.begin() + static_cast<std::ptrdiff_t>(got.bytes));
        got = stream.read(buffer);
      }
      if (last != nullptr) *last = got.status;
      return out.size() >= bytes && (last == nullptr || *last != IoStatus::would_block);
    });
    return out;
  }
  static std::span<const std::uint8_t> bytes(std::string_view text) {
    return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
  }

  DurationHistogram turns;
  EventLoop loop{turns};
  GatherBuffer gather;
  test::Identities identities;
};

TEST_F(TlsStreamTest, WhatIsWrittenGoesOutAtTheFlush) {
  test::PeerPair peers(loop, gather, identities);
  TlsStream& client = peers.client->tls;
  EXPECT_TRUE(client.write(bytes("one ")));
  EXPECT_TRUE(client.write(bytes("piece")));
  EXPECT_GT(gather.used, 0U);
  EXPECT_TRUE(client.flush());
  EXPECT_EQ(gather.used, 0U);
  EXPECT_EQ(read_all(peers.server->tls, 9), "one piece");
}

TEST_F(TlsStreamTest, WhatTheSocketDoesNotTakeIsKeptInOrder) {
  test::PeerPair peers(loop, gather, identities);
  TlsStream& client = peers.client->tls;
  std::string sent;
  for (int i = 0; client.can_write(); ++i) {
    const std::string block(32'000, static_cast<char>('a' + i % 26));
    ASSERT_TRUE(client.write(bytes(block)) && client.flush());
    sent += block;
  }
  std::string got;
  EXPECT_TRUE(run_until(loop, [&] {
    got += read_all(peers.server->tls, 1);
    EXPECT_TRUE(client.can_write() || client.flush());
    return got.size() >= sent.size();
  }));
  EXPECT_TRUE(got == sent);
  EXPECT_TRUE(client.can_write());
}

TEST_F(TlsStreamTest, CloseNotifyIsAnEndAndATcpEndIsNot) {
  for (const bool notify : {true, false}) {
    test::PeerPair peers(loop, gather, identities);
    ASSERT_TRUE(peers.client->tls.write(bytes("last")) && peers.client->tls.flush());
    if (notify) peers.client->tls.send_close_notify();
    peers.client->tls.socket().shutdown_send();
    IoStatus last = IoStatus::would_block;
    EXPECT_EQ(read_all(peers.server->tls, 4, &last), "last");
    EXPECT_EQ(last, notify ? IoStatus::end : IoStatus::reset);
    EXPECT_EQ(peers.server->tls.truncated(), !notify);
  }
}

TEST_F(TlsStreamTest, AHandshakeCanBeGivenUp) {
  const auto [a, b] = test::tcp_pair();
  test::TestEnd silent(b);
  const SocketAddress at{IpAddress::parse("10.0.0.2").value(), Port{80}};
  TlsStream client(loop, gather, a, true, identities.web, identities.web->new_client(at, true));
  Timer timer(loop, [&] { client.socket().cancel(); });
  timer.arm(milliseconds(5));
  EXPECT_EQ(test::run_task(loop, client.handshake(false)), HandshakeEnd::cancelled);
}

TEST_F(TlsStreamTest, AHandshakeWithNonsenseFails) {
  const auto [a, b] = test::tcp_pair();
  test::TestEnd other(b);
  other.send("HTTP/1.1 400 Bad Request\r\n\r\n");
  const SocketAddress at{IpAddress::parse("10.0.0.2").value(), Port{80}};
  TlsStream client(loop, gather, a, true, identities.web, identities.web->new_client(at, true));
  EXPECT_EQ(test::run_task(loop, client.handshake(false)), HandshakeEnd::failed);
  EXPECT_EQ(client.failure().kind, HandshakeFailure::Kind::protocol);
}

TEST_F(TlsStreamTest, AHandshakeWhosePeerGoesAway) {
  for (const bool reset : {true, false}) {
    const auto [a, b] = test::tcp_pair();
    test::TestEnd other(b);
    TlsStream server(loop, gather, a, true, identities.api, identities.api->new_server(false));
    reset ? other.abort() : other.shut();
    EXPECT_EQ(test::run_task(loop, server.handshake(true)), HandshakeEnd::peer_closed);
  }
}

}  // namespace
}  // namespace postern
