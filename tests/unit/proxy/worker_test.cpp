#include "proxy/worker.hpp"

#include <gtest/gtest.h>

#include <thread>

#include "proxy/connection.hpp"
#include "tests/unit/authz/cluster_builder.hpp"
#include "tests/unit/proxy/loop_harness.hpp"

namespace postern {
namespace {

// Two workers with threads of their own, as the server has them.
class WorkerTest : public testing::Test {
 protected:
  WorkerTest() {
    config.access_log.path = "";
    config.workers = 2;
    cluster.ns("default");
    cluster.pod("default/web", "10.0.0.1", {{"app", "web"}});
    cluster.pod("default/api", "10.0.0.2", {{"app", "api"}});
    access_log = std::move(AccessLog::open(config, {&counters[0], &counters[1]}).value());
    for (std::size_t i = 0; i < 2; ++i) workers[i] = std::make_unique<Worker>(i, config, *access_log, log, counters[i]);
  }
  std::shared_ptr<const PolicySnapshot> snapshot(std::uint64_t generation) const {
    return compile(cluster.view, test::key("default/web"), cluster.settings, generation).value();
  }

  Config config;
  Log log{LogLevel::error};
  test::Identities identities;
  test::ClusterBuilder cluster;
  std::array<WorkerCounters, 2> counters;
  std::unique_ptr<AccessLog> access_log;
  std::array<std::unique_ptr<Worker>, 2> workers;
};

// One application connection's life without its sockets to applications: handshake, decision, record, pool.
Task<void> accept_one(Worker& worker, std::unique_ptr<PeerConnection> peer) {
  worker.task_started();
  std::array<std::uint8_t, 64> buffer;
  if (co_await peer->tls.handshake(true) == HandshakeEnd::done) {
    while (peer->read(buffer).status == IoStatus::would_block && !peer->tls.socket().watch().cancelled) {
      co_await until_ready(peer->tls.socket().watch());
    }
  }
  peer.reset();
  worker.task_ended();
}

Task<void> connect_one(Worker& worker, std::atomic<int>& done) {
  worker.task_started();
  const SocketAddress api = test::at("10.0.0.2", 80);
  {
    Record record(worker, Direction::outbound, test::at("10.0.0.1", 1), std::chrono::steady_clock::now());
    Stream stream(worker, ConnectionFacts{Direction::outbound, api.address, api.port, nullptr, true}, record);
    std::unique_ptr<PeerConnection> peer = worker.pool.take(api, worker.tls->generation());
    if (!peer) {
      const auto [a, b] = test::tcp_pair();
      auto other =
          std::make_unique<PeerConnection>(worker.loop, worker.buffers.gather, b, true, worker.tls, worker.tls->new_server(false), api);
      start(worker, accept_one(worker, std::move(other)));
      peer =
          std::make_unique<PeerConnection>(worker.loop, worker.buffers.gather, a, true, worker.tls, worker.tls->new_client(api, true), api);
      const HandshakeOutcome outcome = co_await run_handshake(worker, *peer, Direction::outbound);
      EXPECT_EQ(outcome.reason, Reason::finished);
    }
    ++peer->streams;
    stream.facts.identity = peer->identity;
    record.set_peer(*peer);
    const Judgement judgement = judge(worker.snapshot.get(), stream.facts);
    record.set_judgement(judgement);
    EXPECT_TRUE(judgement.allowed);
    record.end(Reason::finished);
    if (peer->tls.context().generation() == worker.tls->generation()) worker.pool.put(std::move(peer));
  }
  done.fetch_add(1);
  worker.task_ended();
}

TEST_F(WorkerTest, PoliciesAndIdentitiesAreSwappedUnderConnections) {
  // Everybody is api here, to whom everybody connects.
  const auto identity = test::make_context(identities.authority.issue(test::Identities::id("api")), identities.authority);
  const auto sessions = std::make_shared<SessionCache>(1000);
  const auto publish = [&](std::uint64_t generation, std::atomic<int>& enforced) {
    const auto policy = snapshot(generation);
    for (const auto& worker : workers) {
      const auto tls = std::make_shared<const TlsContext>(TlsContext::make(identity, {}, sessions, generation / 3 + 1).value());
      worker->post([&enforced, policy, tls, identity, each = worker.get()] {
        each->adopt_identity(tls, identity);
        each->adopt_policy(policy, [&enforced] { enforced.fetch_add(1); });
      });
    }
  };
  constexpr int rounds = 30;
  constexpr int connections = 100;
  std::atomic<int> enforced{0};
  std::atomic<int> done{0};
  publish(1, enforced);
  std::array<std::thread, 2> threads;
  for (std::size_t i = 0; i < 2; ++i) threads[i] = std::thread([worker = workers[i].get()] { worker->run(); });
  std::thread publisher([&] {
    for (std::uint64_t generation = 2; generation <= rounds; ++generation) {
      publish(generation, enforced);
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  });
  for (int i = 0; i < connections; ++i) {
    for (const auto& worker : workers) {
      worker->post([&done, each = worker.get()] { start(*each, connect_one(*each, done)); });
    }
    std::this_thread::sleep_for(std::chrono::microseconds(500));
  }
  publisher.join();
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while ((done.load() < 2 * connections || enforced.load() < 2 * rounds) && std::chrono::steady_clock::now() < end) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(done.load(), 2 * connections);
  EXPECT_EQ(enforced.load(), 2 * rounds);
  for (const auto& worker : workers) worker->post([each = worker.get()] { each->shut_down(Reason::shutdown); });
  for (std::thread& thread : threads) thread.join();
  for (const WorkerCounters& each : counters) {
    EXPECT_EQ(each.connections_active[1].value(), 0U);
    EXPECT_EQ(each.connections_opened[1].value(), static_cast<std::uint64_t>(connections));
    EXPECT_EQ(each.policy_generation.value(), static_cast<std::uint64_t>(rounds));
    EXPECT_EQ(each.pool_idle.value(), 0U);
  }
}

TEST_F(WorkerTest, BoundsAreSharedByTheWorkers) {
  config.limits.max_connections = 4;
  config.limits.max_handshakes = 2;
  config.limits.max_connections_per_source = 2;
  Worker& worker = *workers[0];
  const IpAddress source = test::ip("10.0.0.1");
  EXPECT_EQ(worker.may_admit(Direction::inbound, source), Reason::finished);
  {
    const Worker::Admission one(worker, Direction::inbound, {source, Port{40000}});
    EXPECT_EQ(worker.may_admit(Direction::inbound, source), Reason::too_many_from_source);
    EXPECT_EQ(worker.may_admit(Direction::inbound, test::ip("10.0.0.9")), Reason::finished);
    EXPECT_EQ(worker.may_admit(Direction::outbound, source), Reason::finished);
    worker.handshakes = 1;
    EXPECT_EQ(worker.may_admit(Direction::inbound, test::ip("10.0.0.9")), Reason::too_many_handshakes);
    worker.handshakes = 0;
    const Worker::Admission two(worker, Direction::outbound, {source, Port{40001}});
    EXPECT_EQ(worker.may_admit(Direction::outbound, source), Reason::too_many_connections);
  }
  EXPECT_EQ(worker.may_admit(Direction::inbound, source), Reason::finished);
}

TEST_F(WorkerTest, RemembersThePortsOfApplicationsThatHaveEnded) {
  SourcePorts ports("40000 40009", "");
  Worker& worker = *workers[0];
  worker.source_ports = std::make_unique<SourcePortTurn>(ports, 1);
  const IpAddress pod = test::ip("10.0.0.1");
  { const Worker::Admission served(worker, Direction::outbound, {pod, Port{40001}}); }
  { const Worker::Admission from_elsewhere(worker, Direction::inbound, {pod, Port{40003}}); }
  worker.shed(Direction::outbound, Reason::too_many_connections, {pod, Port{40005}});
  const auto now = worker.loop.now();
  EXPECT_TRUE(ports.ended_lately(Port{40001}, now));
  EXPECT_FALSE(ports.ended_lately(Port{40003}, now));
  EXPECT_TRUE(ports.ended_lately(Port{40005}, now));
}

}  // namespace
}  // namespace postern
