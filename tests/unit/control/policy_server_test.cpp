#include "control/policy_server.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <malloc.h>

#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/ssl/error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/buffers_to_string.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <csignal>

#include "certs/tls_socket.hpp"
#include "tests/kit/test_authority.hpp"
#include "tests/unit/control/cluster_feed.hpp"

namespace postern::test {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace websocket = beast::websocket;
using asio::ip::tcp;
using testing::HasSubstr;
using namespace std::chrono_literals;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
const std::string web_id = "spiffe://example.org/ns/shop/sa/web/pod/web-0/u1";
const SocketAddress control_address{IpAddress::v4({127, 0, 0, 1}), Port{15010}};

// A sidecar's end of a stream, which keeps what it is told.
struct Sidecar {
  explicit Sidecar(asio::io_context& io) : io(io) {}

  asio::awaitable<void> run(Port port, const TlsContext& tls, std::string path, std::vector<std::string> first) {
    tcp::socket socket(io);
    const auto [connect_error] = co_await socket.async_connect(tcp::endpoint(asio::ip::address_v4::loopback(), port.number), as_values);
    if (connect_error) co_return end("connect");
    ws.emplace(TlsSocket(std::move(socket), tls.new_client(control_address, true)));
    const Result<void> shaken = co_await ws->next_layer().handshake();
    if (!shaken) co_return end("handshake");
    resumed = TlsContext::facts(ws->next_layer().ssl()).resumed;
    const auto [upgrade_error] = co_await ws->async_handshake("control", path, as_values);
    if (upgrade_error) co_return end("upgrade");
    for (const std::string& text : first) {
      const auto [error, n] = co_await ws->async_write(asio::buffer(text), as_values);
      if (error) co_return end("write");
    }
    while (true) {
      beast::flat_buffer buffer;
      const auto [error, n] = co_await ws->async_read(buffer, as_values);
      if (error) break;
      received.push_back(decode_control_message(beast::buffers_to_string(buffer.data())).value());
      if (acknowledges && std::holds_alternative<Update>(received.back())) {
        const std::string text = encode(SidecarMessage(Ack{std::get<Update>(received.back()).nonce}));
        co_await ws->async_write(asio::buffer(text), as_values);
      }
    }
    end("closed");
  }
  void end(std::string why) {
    ended = std::move(why);
    if (ws) code = ws->reason().code;
  }

  asio::io_context& io;
  std::optional<websocket::stream<TlsSocket>> ws;
  std::vector<ControlMessage> received;
  std::string ended;
  std::uint16_t code = 0;
  bool resumed = false;
  bool acknowledges = true;
};

struct PolicyServerTest : testing::Test {
  PolicyServerTest() {
    std::signal(SIGPIPE, SIG_IGN);
    config.mesh.trust_domain = TrustDomain::parse("example.org").value();
    c.ns("shop", {});
    Pod& web = c.pod("shop/web-0", "10.0.0.1", {{"app", "web"}});
    web.workload.uid = "u1";
    web.workload.service_account = "web";
    store.set_store_uid("cluster");
  }
  ~PolicyServerTest() override { log.set_level(LogLevel::error); }

  void start() {
    feed.list(c);
    server.emplace(
        io, config, store, publisher, log, [this] { flush(); }, [this] { ++acknowledged; });
    ASSERT_TRUE(server->use_ticket_keys(TicketKeys{{ticket_key}, 0}));
    ASSERT_TRUE(server->use_identity(context("spiffe://example.org/postern/control")));
    auto socket = listen_on_port(Port{0}, "listen.stream");
    ASSERT_TRUE(socket);
    port = socket->port();
    server->start(*std::move(socket));
    flush();
  }
  void flush() {
    publisher.flush();
    server->flushed(store.mark());
  }

  X509ContextPtr context(const std::string& id) {
    const TestSvid issued = authority.issue(id);
    TrustBundleSet bundles;
    bundles.add(authority.bundle("example.org"));
    return std::make_shared<const X509Context>(X509Context{parse_svid(issued.chain_pem, issued.key_pem).value(), std::move(bundles)});
  }
  TlsContext client(const std::string& id) {
    TlsSettings settings;
    settings.alpn = control_alpn;
    return TlsContext::make(context(id), settings, tls_sessions, 1).value();
  }
  Sidecar& connect(const TlsContext& tls, std::vector<std::string> first = {encode(SidecarMessage(Hello{}))},
                   const std::string& path = std::string(stream_path)) {
    Sidecar& sidecar = *sidecars.emplace_back(std::make_unique<Sidecar>(io));
    asio::co_spawn(io, sidecar.run(port, tls, path, std::move(first)), asio::detached);
    return sidecar;
  }
  template <class Condition>
  bool reach(Condition condition) {
    const auto until = std::chrono::steady_clock::now() + 20s;
    while (!condition() && std::chrono::steady_clock::now() < until) io.run_one_for(100ms);
    return condition();
  }
  bool enforces(const WorkloadKey& pod) {
    const PolicyStream* stream = server->stream_of(pod);
    return stream != nullptr && stream->acknowledged_once();
  }

  asio::io_context client_io{1};  // of clients that are to go on while the server does nothing
  asio::io_context io{1};
  ControlConfig config;
  Log log{LogLevel::error};
  ClusterBuilder c;
  ClusterStore store;
  ClusterFeed feed{store};
  Publisher publisher{store};
  TestAuthority authority = TestAuthority::root("root");
  const TicketKey ticket_key = TicketKey::make().value();
  std::shared_ptr<SessionCache> tls_sessions = std::make_shared<SessionCache>();
  std::vector<std::unique_ptr<Sidecar>> sidecars;
  std::optional<PolicyServer> server;
  Port port;
  int acknowledged = 0;
};

TEST_F(PolicyServerTest, ASidecarGetsItsStateAndAcknowledges) {
  start();
  const TlsContext tls = client(web_id);
  Sidecar& sidecar = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); })) << sidecar.ended;
  EXPECT_TRUE(server->stream_of(key("shop/web-0"))->acknowledged().contains("allow-list"));
  EXPECT_GT(acknowledged, 0);
  const auto stats = server->stats();
  EXPECT_EQ(stats.open, 1U);
  EXPECT_EQ(stats.serving, 1U);
  EXPECT_EQ(stats.handshaking, 0U);
  EXPECT_THAT(server->streams_json(), HasSubstr("web-0"));
}

TEST_F(PolicyServerTest, AChangeFollows) {
  start();
  const TlsContext tls = client(web_id);
  Sidecar& sidecar = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); })) << sidecar.ended;
  feed.apply(c.policy("shop/web", labelled({{"app", "web"}})));
  flush();
  ASSERT_TRUE(reach([&] { return server->stats().streams.acks == 2; }));
}

TEST_F(PolicyServerTest, AMalformedMessageEndsThatStreamAndNothingElse) {
  start();
  const TlsContext tls = client(web_id);
  c.pod("shop/bad", "10.0.0.8", {}).workload.uid = "u8";
  feed.apply(c.view.pods.at(key("shop/bad")));
  flush();
  const TlsContext bad_tls =
      client("spiffe://example.org/ns/shop/sa/" + c.view.pods.at(key("shop/bad")).workload.service_account + "/pod/bad/u8");
  Sidecar& good = connect(tls);
  Sidecar& bad = connect(bad_tls, {encode(SidecarMessage(Hello{})), "{\"type\":\"nonsense\"}"});
  ASSERT_TRUE(reach([&] { return !bad.ended.empty() && enforces(key("shop/web-0")); }));
  EXPECT_EQ(bad.code, 1002);
  EXPECT_EQ(good.ended, "");
  ASSERT_TRUE(reach([&] { return server->count() == 1; }));
  EXPECT_EQ(server->stats().ended.at("malformed"), 1U);
}

TEST_F(PolicyServerTest, AnOversizedMessageEndsItsStream) {
  config.limits.message_kilobytes = 1;
  start();
  const TlsContext tls = client(web_id);
  Sidecar& sidecar = connect(tls, {std::string(2000, ' ')});
  ASSERT_TRUE(reach([&] { return !sidecar.ended.empty(); }));
  EXPECT_EQ(sidecar.code, 1009);
  ASSERT_TRUE(reach([&] { return server->count() == 0; }));
  EXPECT_EQ(server->stats().handshaking, 0U);
}

TEST_F(PolicyServerTest, ASecondStreamOfTheSameWorkloadReplacesTheFirst) {
  start();
  const TlsContext tls = client(web_id);
  Sidecar& first = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  Sidecar& second = connect(tls);
  ASSERT_TRUE(reach([&] { return !first.ended.empty() && enforces(key("shop/web-0")) && server->count() == 1; }));
  EXPECT_EQ(first.code, 1008);
  EXPECT_EQ(second.ended, "");
  EXPECT_TRUE(second.resumed);
}

// A killed sidecar, or one whose network went away, has said no goodbye; nor has a killed replica.
TEST_F(PolicyServerTest, AStreamThatIsCutOffIsResumed) {
  start();
  const TlsContext tls = client(web_id);
  Sidecar& first = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  beast::get_lowest_layer(*first.ws).close();
  ASSERT_TRUE(reach([&] { return server->count() == 0; }));
  Sidecar& second = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  EXPECT_TRUE(second.resumed);
  EXPECT_EQ(server->stats().tls_resumed, 1U);
  // Whose stream it is, is known from the session: its pod is looked at again.
  feed.erase(c.view.pods.at(key("shop/web-0")));
  flush();
  ASSERT_TRUE(reach([&] { return !second.ended.empty(); }));
  Sidecar& third = connect(tls);
  ASSERT_TRUE(reach([&] { return !third.received.empty(); }));
  EXPECT_TRUE(third.resumed);
  EXPECT_TRUE(std::holds_alternative<NotReady>(third.received.front()));
}

TEST_F(PolicyServerTest, OtherTicketKeysMeanAFullHandshake) {
  start();
  const TlsContext tls = client(web_id);
  connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  ASSERT_TRUE(server->use_ticket_keys(TicketKeys{{TicketKey::make().value()}, 0}));
  Sidecar& second = connect(tls);
  ASSERT_TRUE(reach([&] { return server->stats().streams.acks == 2; }));
  EXPECT_FALSE(second.resumed);
}

TEST_F(PolicyServerTest, YesterdaysPodOfTheSameNameTakesNobodysPlace) {
  start();
  const TlsContext tls = client(web_id);
  const TlsContext old_tls = client("spiffe://example.org/ns/shop/sa/web/pod/web-0/u0");
  Sidecar& today = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  Sidecar& yesterday = connect(old_tls);
  ASSERT_TRUE(reach([&] { return !yesterday.received.empty(); }));
  EXPECT_TRUE(std::holds_alternative<NotReady>(yesterday.received.front()));
  EXPECT_EQ(today.ended, "");
  EXPECT_TRUE(enforces(key("shop/web-0")));
}

TEST_F(PolicyServerTest, AnSvidOfNoPodIsRefused) {
  start();
  const TlsContext tls = client("spiffe://example.org/ns/shop/sa/web");
  Sidecar& sidecar = connect(tls);
  ASSERT_TRUE(reach([&] { return !sidecar.ended.empty(); }));
  EXPECT_EQ(server->stats().ended.at("refused"), 1U);
}

TEST_F(PolicyServerTest, AnotherPathIsRefused) {
  start();
  const TlsContext tls = client(web_id);
  Sidecar& sidecar = connect(tls, {}, "/v2/stream");
  ASSERT_TRUE(reach([&] { return !sidecar.ended.empty() && server->count() == 0; }));
  EXPECT_EQ(sidecar.ended, "upgrade");
}

TEST_F(PolicyServerTest, WhoNeverSaysHelloIsCut) {
  config.limits.handshake_timeout = 300ms;
  start();
  const TlsContext tls = client(web_id);
  Sidecar& silent = connect(tls, {});
  tcp::socket bare(io);
  bare.connect(tcp::endpoint(asio::ip::address_v4::loopback(), port.number));
  ASSERT_TRUE(reach([&] { return server->stats().accepted == 2 && server->count() == 0 && !silent.ended.empty(); }));
  EXPECT_EQ(silent.ended, "closed");
  EXPECT_EQ(server->stats().ended.at("handshake_timeout"), 2U);
  EXPECT_EQ(server->stats().handshaking, 0U);
}

// A replica that ends sends all of its sidecars to another one at once.
TEST_F(PolicyServerTest, ACrowdWaitsInTheKernelForItsTurn) {
  start();
  constexpr std::size_t count = 800;
  std::vector<tcp::socket> crowd;
  std::size_t connected = 0;
  for (std::size_t i = 0; i < count; ++i) {
    crowd.emplace_back(client_io).async_connect(tcp::endpoint(asio::ip::address_v4::loopback(), port.number),
                                                [&](const boost::system::error_code& error) { connected += error ? 0 : 1; });
  }
  // Nobody accepts. Before a SYN that was dropped comes again, after a second.
  client_io.run_for(900ms);
  EXPECT_EQ(connected, count);
}

TEST_F(PolicyServerTest, WhoHasGivenUpCostsNoHandshake) {
  start();
  const TlsContext tls = client(web_id);
  for (int i = 0; i < 20; ++i) {
    // Says hello in TLS, waits for a while, and goes.
    tcp::socket socket(client_io);
    socket.connect(tcp::endpoint(asio::ip::address_v4::loopback(), port.number));
    TlsSocket impatient(std::move(socket), tls.new_client(control_address, true));
    asio::co_spawn(
        client_io, [](TlsSocket& secured) -> asio::awaitable<void> { co_await secured.handshake(); }(impatient), asio::detached);
    client_io.restart();
    client_io.run_for(5ms);
    impatient.close();
    client_io.run_for(5ms);
  }
  Sidecar& patient = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); })) << patient.ended;
  EXPECT_EQ(server->stats().ended["gave_up"], 20U);
  EXPECT_FALSE(server->stats().ended.contains("handshake_failed"));
}

TEST_F(PolicyServerTest, ASilentSidecarIsCut) {
  config.limits.idle_timeout = 300ms;
  start();
  const TlsContext tls = client(web_id);
  Sidecar& sidecar = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  // Neither reads nor answers pings any more: what is sent to it stays in the kernel.
  sidecar.ws->next_layer().next_layer().cancel();
  ASSERT_TRUE(reach([&] { return server->count() == 0; }));
  EXPECT_EQ(server->stats().ended["idle"], 1U);
}

TEST_F(PolicyServerTest, GoodbyeIsSaidToEveryone) {
  start();
  const TlsContext tls = client(web_id);
  Sidecar& sidecar = connect(tls);
  ASSERT_TRUE(reach([&] { return enforces(key("shop/web-0")); }));
  server->close();
  ASSERT_TRUE(reach([&] { return server->count() == 0 && !sidecar.ended.empty(); }));
  EXPECT_EQ(sidecar.code, 1001);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
// Both ends are in this process: the bound holds for the server's half even if it had all of it.
TEST_F(PolicyServerTest, AStreamCostsLittle) {
  constexpr int count = 60;
  for (int i = 0; i < count; ++i) {
    Pod& pod = c.pod("shop/p" + std::to_string(i), "10.1.0." + std::to_string(i + 1), {{"app", "p"}});
    pod.workload.uid = "p" + std::to_string(i);
    pod.workload.service_account = "default";
  }
  start();
  std::vector<TlsContext> contexts;
  for (int i = 0; i < count; ++i) {
    contexts.push_back(client("spiffe://example.org/ns/shop/sa/default/pod/p" + std::to_string(i) + "/p" + std::to_string(i)));
  }
  const auto all_up_to = [&](int n) { return [this, n] { return server->stats().streams.acks == static_cast<std::uint64_t>(n); }; };
  connect(contexts[0]);
  ASSERT_TRUE(reach(all_up_to(1)));
  const std::size_t before = mallinfo2().uordblks;
  for (int i = 1; i < count; ++i) connect(contexts[static_cast<std::size_t>(i)]);
  ASSERT_TRUE(reach(all_up_to(count)));
  const std::size_t each = (mallinfo2().uordblks - before) / (count - 1);
  RecordProperty("bytes_for_both_ends", static_cast<int>(each));
  EXPECT_LT(each, 80U << 10) << "both ends together; a stream may cost 40 KiB at either";
}
#endif

}  // namespace
}  // namespace postern::test
