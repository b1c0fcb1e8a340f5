#include "proxy/connection_pool.hpp"

#include <gtest/gtest.h>

#include "tests/unit/authz/cluster_builder.hpp"
#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;
using test::run_until;

class ConnectionPoolTest : public testing::Test {
 protected:
  ConnectionPoolTest() {
    config.recycling.per_destination = 2;
    config.recycling.total = 3;
    cluster.ns("default");
    cluster.pod("default/web", "10.0.0.1", {{"app", "web"}});
    cluster.pod("default/api", "10.0.0.2", {{"app", "api"}});
  }
  // A connection to api whose stream has ended; its other end is kept in `others`.
  std::unique_ptr<PeerConnection> connection(std::uint16_t port = 80) {
    test::PeerPair pair(loop, gather, identities);
    pair.client->remote = test::at("10.0.0.2", port);
    std::array<std::uint8_t, 64> nothing;
    EXPECT_TRUE(run_until(loop, [&] { return pair.client->read(nothing).status == IoStatus::would_block; }));  // session tickets
    others.push_back(std::move(pair.server));
    return std::move(pair.client);
  }

  DurationHistogram turns;
  EventLoop loop{turns};
  GatherBuffer gather;
  test::Identities identities;
  test::ClusterBuilder cluster;
  Config config;
  WorkerCounters counters;
  std::vector<std::unique_ptr<PeerConnection>> others;
  ConnectionPool pool{loop, config, counters};
  const SocketAddress api = test::at("10.0.0.2", 80);
};

TEST_F(ConnectionPoolTest, GivesBackTheOneUsedLastByDestinationAndPort) {
  auto first = connection(), second = connection(), other = connection(81);
  const PeerConnection* last = second.get();
  pool.put(std::move(first));
  pool.put(std::move(second));
  pool.put(std::move(other));
  EXPECT_EQ(counters.pool_idle.value(), 3U);
  EXPECT_EQ(pool.take(test::at("10.0.0.3", 80), 1), nullptr);
  EXPECT_EQ(pool.take(api, 1).get(), last);
  EXPECT_NE(pool.take(api, 1), nullptr);
  EXPECT_EQ(pool.take(api, 1), nullptr);
  EXPECT_EQ(pool.size(), 1U);
}

TEST_F(ConnectionPoolTest, KeepsNoMoreThanItsBounds) {
  for (int i = 0; i < 3; ++i) pool.put(connection());
  EXPECT_EQ(pool.size(), 2U);
  pool.put(connection(81));
  pool.put(connection(82));
  EXPECT_EQ(pool.size(), 3U);
  EXPECT_EQ(pool.take(test::at("10.0.0.2", 82), 1), nullptr);
  EXPECT_EQ(counters.pool_idle.value(), 3U);
}

TEST_F(ConnectionPoolTest, AnotherSvidMeansAnotherConnection) {
  pool.put(connection());
  EXPECT_EQ(pool.take(api, 2), nullptr);
  EXPECT_EQ(pool.size(), 0U);
}

TEST_F(ConnectionPoolTest, DropsWhatThePeerClosesOrSpeaksOn) {
  const auto drops = [this](const std::function<void(PeerConnection&)>& what) {
    pool.put(connection());
    what(*others.back());
    return run_until(loop, [this] { return pool.size() == 0; });
  };
  EXPECT_TRUE(drops([](PeerConnection& peer) { peer.tls.send_close_notify(); }));
  EXPECT_TRUE(drops([](PeerConnection& peer) { peer.tls.socket().shutdown_send(); }));
  EXPECT_TRUE(drops([this](PeerConnection& peer) {
    peer.tls.socket().abort();
    others.pop_back();
  }));
  EXPECT_TRUE(drops([](PeerConnection& peer) { peer.send_control(FrameType::end); }));
}

TEST_F(ConnectionPoolTest, WhatDiedSinceTheLastTurnIsNotGivenOut) {
  pool.put(connection());
  others.back()->tls.send_close_notify();
  others.back()->tls.socket().shutdown_send();
  loop.run_once(milliseconds(5));
  EXPECT_EQ(pool.take(api, 1), nullptr);
}

TEST_F(ConnectionPoolTest, ClosesWhatIsIdleForTooLong) {
  config.recycling.outbound_idle = milliseconds(10);
  pool.put(connection());
  EXPECT_TRUE(run_until(loop, [this] { return pool.size() == 0; }));
  std::array<std::uint8_t, 8> buffer;
  IoResult got;
  EXPECT_TRUE(run_until(loop, [&] { return (got = others.back()->read(buffer)).status != IoStatus::would_block; }));
  EXPECT_EQ(got.status, IoStatus::end);
}

TEST_F(ConnectionPoolTest, APolicyChangeClosesWhatItNoLongerAllows) {
  const auto before = cluster.compile("default/web");
  pool.put(connection());
  pool.put(connection(81));
  cluster.egress_policy("default/web-out", test::labelled({{"app", "web"}})).egress.push_back({.ports = {test::on(81)}, .peers = {}});
  const auto now = cluster.compile("default/web");
  pool.recheck(before.get(), *now);
  EXPECT_EQ(pool.take(api, 1), nullptr);
  EXPECT_NE(pool.take(test::at("10.0.0.2", 81), 1), nullptr);
}

TEST_F(ConnectionPoolTest, AChangedRecordClosesItsConnections) {
  auto before = cluster.compile("default/web");
  const auto closes = [&](auto change) {
    pool.put(connection());
    change();
    const auto now = cluster.compile("default/web");
    pool.recheck(before.get(), *now);
    before = now;
    return pool.size() == 0;
  };
  EXPECT_FALSE(closes([] {}));
  EXPECT_TRUE(closes([&] { cluster.view.pods.at(test::key("default/api")).workload.uid = "uid-next"; }));
  cluster.view.pods.at(test::key("default/api")).workload.uid = "uid-api";
  before = cluster.compile("default/web");
  EXPECT_TRUE(closes([&] { cluster.view.pods.at(test::key("default/web")).workload.excluded_outbound_ports = {Port{9}}; }));
  EXPECT_TRUE(closes([&] { cluster.view.pods.erase(test::key("default/api")); }));
}

}  // namespace
}  // namespace postern
