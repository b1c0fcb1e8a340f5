#include "certs/tls_socket.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <csignal>

#include "certs/tls_context.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using test::TestAuthority;
using test::TestSvid;
using testing::HasSubstr;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr const char* client_id = "spiffe://example.org/ns/shop/sa/web/pod/web-0/u1";
constexpr const char* server_id = "spiffe://example.org/postern/control";

struct TlsSocketTest : testing::Test {
  TlsSocketTest() { std::signal(SIGPIPE, SIG_IGN); }

  TlsContext make(const char* id, std::string_view alpn = control_alpn) {
    const TestSvid issued = authority.issue(id);
    TrustBundleSet bundles;
    bundles.add(authority.bundle("example.org"));
    TlsSettings settings;
    settings.alpn = alpn;
    return TlsContext::make(
               std::make_shared<const X509Context>(X509Context{parse_svid(issued.chain_pem, issued.key_pem).value(), std::move(bundles)}),
               settings, nullptr, 1)
        .value();
  }

  std::pair<tcp::socket, tcp::socket> connected() {
    tcp::acceptor acceptor(io, tcp::endpoint(asio::ip::address_v4::loopback(), 0));
    tcp::socket client(io);
    client.connect(acceptor.local_endpoint());
    return {std::move(client), acceptor.accept()};
  }

  struct Ends {
    TlsSocket client;
    TlsSocket server;
    Result<void> client_shaken{};
    Result<void> server_shaken{};
  };
  std::unique_ptr<Ends> shake(const TlsContext& client, const TlsContext& server) {
    auto [near, far] = connected();
    auto ends = std::make_unique<Ends>(
        Ends{TlsSocket(std::move(near), client.new_client({}, true)), TlsSocket(std::move(far), server.new_server(false))});
    asio::co_spawn(io, shake_one(ends->client, ends->client_shaken), asio::detached);
    asio::co_spawn(io, shake_one(ends->server, ends->server_shaken), asio::detached);
    run();
    return ends;
  }
  std::unique_ptr<Ends> shaken() {
    auto ends = shake(client_context, server_context);
    EXPECT_TRUE(ends->client_shaken && ends->server_shaken);
    return ends;
  }
  static asio::awaitable<void> shake_one(TlsSocket& socket, Result<void>& result) { result = co_await socket.handshake(); }

  void run() {
    io.restart();
    io.run();
  }

  asio::io_context io{1};
  TestAuthority authority = TestAuthority::root("root");
  TlsContext client_context = make(client_id);
  TlsContext server_context = make(server_id);
};

asio::awaitable<void> write_text(TlsSocket& socket, const std::string& text, error_code& error) {
  const auto [ec, n] = co_await asio::async_write(socket, asio::buffer(text), as_values);
  error = ec;
}

asio::awaitable<void> read_text(TlsSocket& socket, std::size_t size, std::string& text, error_code& error) {
  text.resize(size);
  const auto [ec, n] = co_await asio::async_read(socket, asio::buffer(text), as_values);
  text.resize(n);
  error = ec;
}

TEST_F(TlsSocketTest, BothEndsKnowEachOther) {
  const auto ends = shaken();
  EXPECT_EQ(TlsContext::peer_identity(ends->client.ssl())->id.text(), server_id);
  EXPECT_EQ(TlsContext::peer_identity(ends->server.ssl())->id.text(), client_id);
  EXPECT_TRUE(TlsContext::used_postern_alpn(ends->server.ssl()));
}

TEST_F(TlsSocketTest, TheDataPlanesProtocolIsRefusedByName) {
  const TlsContext sidecar = make(client_id, postern_alpn);
  const auto ends = shake(sidecar, server_context);
  ASSERT_FALSE(ends->server_shaken);
  EXPECT_FALSE(ends->client_shaken && ends->server_shaken);
}

TEST_F(TlsSocketTest, APeerThatHangsUpEndsTheHandshake) {
  auto [near, far] = connected();
  TlsSocket server(std::move(far), server_context.new_server(false));
  near.close();
  Result<void> result;
  asio::co_spawn(io, shake_one(server, result), asio::detached);
  run();
  ASSERT_FALSE(result);
  EXPECT_THAT(result.error().text(), HasSubstr("TLS handshake"));
}

// Far more than any buffer holds, both ways at the same time.
TEST_F(TlsSocketTest, BigTransfersArriveWhole) {
  const auto ends = shaken();
  std::string up(6U << 20, 'u');
  std::string down(5U << 20, 'd');
  for (std::size_t i = 0; i < up.size(); i += 997) up[i] = static_cast<char>('a' + i % 26);
  std::string got_up;
  std::string got_down;
  std::array<error_code, 4> errors;
  asio::co_spawn(io, write_text(ends->client, up, errors[0]), asio::detached);
  asio::co_spawn(io, write_text(ends->server, down, errors[1]), asio::detached);
  asio::co_spawn(io, read_text(ends->server, up.size(), got_up, errors[2]), asio::detached);
  asio::co_spawn(io, read_text(ends->client, down.size(), got_down, errors[3]), asio::detached);
  run();
  for (const error_code& error : errors) EXPECT_FALSE(error) << error.message();
  EXPECT_TRUE(got_up == up);
  EXPECT_TRUE(got_down == down);
}

TEST_F(TlsSocketTest, TheEndOfTlsIsTheEndOfTheStream) {
  const auto ends = shaken();
  ends->client.close();
  std::string text;
  error_code error;
  asio::co_spawn(io, read_text(ends->server, 1, text, error), asio::detached);
  run();
  EXPECT_EQ(error, asio::error::eof);
}

TEST_F(TlsSocketTest, ATcpEndAloneIsTruncation) {
  const auto ends = shaken();
  ends->client.next_layer().shutdown(asio::socket_base::shutdown_send);
  std::string text;
  error_code error;
  asio::co_spawn(io, read_text(ends->server, 1, text, error), asio::detached);
  run();
  EXPECT_EQ(error, asio::ssl::error::stream_truncated);
}

TEST_F(TlsSocketTest, AClosedSocketEndsWhatIsUnderWay) {
  const auto ends = shaken();
  std::string text;
  error_code error;
  asio::co_spawn(io, read_text(ends->server, 1, text, error), asio::detached);
  asio::post(io, [&] { ends->server.next_layer().close(); });
  run();
  EXPECT_EQ(error, asio::error::operation_aborted);
}

TEST_F(TlsSocketTest, NoByteForAnEmptyBuffer) {
  const auto ends = shaken();
  std::string text;
  error_code error = asio::error::eof;
  asio::co_spawn(io, read_text(ends->server, 0, text, error), asio::detached);
  run();
  EXPECT_FALSE(error);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Both ends of a stream that has carried much and is idle now. asio::ssl::stream alone would hold 68 KiB for each end.
TEST_F(TlsSocketTest, AnIdleStreamHoldsNoBuffers) {
  std::vector<std::unique_ptr<Ends>> streams;
  const auto one = [&] {
    streams.push_back(shaken());
    std::string sent(100'000, 'x');
    std::string got;
    std::array<error_code, 2> errors;
    asio::co_spawn(io, write_text(streams.back()->client, sent, errors[0]), asio::detached);
    asio::co_spawn(io, read_text(streams.back()->server, sent.size(), got, errors[1]), asio::detached);
    run();
  };
  one();
  constexpr std::size_t count = 50;
  const std::size_t before = mallinfo2().uordblks;
  for (std::size_t i = 0; i < count; ++i) one();
  const std::size_t each = (mallinfo2().uordblks - before) / count;
  EXPECT_LT(each, 48U << 10) << "both ends together";
  RecordProperty("bytes_for_both_ends", static_cast<int>(each));
}
#endif

}  // namespace
}  // namespace postern
