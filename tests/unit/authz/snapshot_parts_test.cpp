#include "authz/snapshot_parts.hpp"

#include <gtest/gtest.h>

#include "authz/explain.hpp"
#include "authz/topology.hpp"
#include "tests/unit/authz/parts_of.hpp"
#include "tests/unit/authz/random_cluster.hpp"

namespace postern::test {
namespace {

bool same(const Decision& a, const Decision& b) {
  if (a.allowed != b.allowed || a.basis != b.basis || (a.origin == nullptr) != (b.origin == nullptr)) return false;
  return a.origin == nullptr || *a.origin == *b.origin;
}
bool same(const Verdict& a, const Verdict& b) { return same(a.enforced, b.enforced) && same(a.pending, b.pending); }

std::shared_ptr<const PolicySnapshot> assembled(const SnapshotParts& parts) {
  const auto snapshot = assemble(parts, 1, {});
  if (!snapshot) ADD_FAILURE() << snapshot.error().text();
  return snapshot ? *snapshot : nullptr;
}

// What a sidecar holds once it has looked the peer up, which it does for whoever no peer set names.
void look_up(SnapshotParts& parts, const RandomCluster& random, const Peer& peer) {
  for (const auto& [key, pod] : random.c.view.pods) {
    if (pod.workload.host_network || pod.ended()) continue;
    const bool is_it = peer.workload != nullptr && key == WorkloadKey{peer.workload->ns, peer.workload->name};
    if (is_it || pod.workload.has_address(peer.address)) add_pod(parts, random.c.view, random.c.settings, key);
  }
}

TEST(Assemble, DecidesAndExplainsLikeTheCompiledSnapshot) {
  std::size_t rules = 0;
  std::size_t denied = 0;
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    RandomCluster random(seed);
    Compiler compiler(random.c.view, random.c.settings);
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const auto compiled = compiler.compile(id, 1).value();
      const auto whole = assembled(all_parts(random.c.view, random.c.settings, id));
      const SnapshotParts scope = scoped_parts(random.c.view, random.c.settings, id);
      ASSERT_NE(whole, nullptr);
      for (int i = 0; i < 30; ++i) {
        const auto direction = i % 2 == 0 ? PolicyDirection::ingress : PolicyDirection::egress;
        const Peer peer = random.peer(*compiled);
        const Port port = random.port();
        const Protocol protocol = random.protocol();
        const Verdict expected = decide(compiled.get(), direction, peer, port, protocol);
        const auto where = [&, &of_pod = id] {
          return "seed " + std::to_string(seed) + " " + of_pod.text() + " " + std::string(name_of(direction)) + " " + peer.address.text() +
                 " " + std::string(name_of(protocol)) + " " + std::to_string(port.number);
        };
        ASSERT_TRUE(same(decide(whole.get(), direction, peer, port, protocol), expected)) << where();
        ASSERT_EQ(text_of(explain(*whole, direction, peer, port, protocol)), text_of(explain(*compiled, direction, peer, port, protocol)));
        if (i % 5 == 0) {
          SnapshotParts parts = scope;
          look_up(parts, random, peer);
          ASSERT_TRUE(same(decide(assembled(parts).get(), direction, peer, port, protocol), expected)) << "in scope: " << where();
        }
        rules += expected.enforced.basis == Basis::rule ? 1 : 0;
        denied += expected.allowed() ? 0 : 1;
      }
    }
  }
  EXPECT_GT(rules, 2000U);
  EXPECT_GT(denied, 2000U);
}

TEST(Assemble, RecordsSettingsAndPeerSetsAreThoseOfTheCompiledSnapshot) {
  for (std::uint32_t seed = 0; seed < 50; ++seed) {
    RandomCluster random(seed);
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const auto compiled = random.c.compile(id.text());
      const auto whole = assembled(all_parts(random.c.view, random.c.settings, id));
      ASSERT_NE(whole, nullptr);
      EXPECT_EQ(whole->settings(), compiled->settings());
      EXPECT_EQ(whole->self(), compiled->self());
      EXPECT_EQ(whole->allow_list(), compiled->allow_list());
    }
  }
}

class HalfAState : public testing::Test {
 protected:
  HalfAState() {
    c.ns("shop");
    c.pod("shop/db", "10.0.0.1", {{"app", "db"}});
    c.pod("shop/web", "10.0.0.2", {{"app", "web"}});
    c.policy("shop/db").ingress = {{.ports = {}, .peers = {pods(labelled({{"app", "web"}}))}}};
    parts = all_parts(c.view, c.settings, key("shop/db"));
  }

  std::string failure() const {
    const auto snapshot = assemble(parts, 1, {});
    return snapshot ? "assembled" : snapshot.error().text();
  }

  ClusterBuilder c;
  SnapshotParts parts;
};

TEST_F(HalfAState, IsNeverEnforced) {
  EXPECT_EQ(failure(), "assembled");
  const SnapshotParts good = parts;
  parts.allow_list.reset();
  EXPECT_NE(failure().find("allow list of shop/db"), std::string::npos);
  parts = good;
  parts.settings.reset();
  EXPECT_NE(failure().find("settings"), std::string::npos);
  parts = good;
  parts.pods.erase(key("shop/db"));
  EXPECT_NE(failure().find("shop/db"), std::string::npos);
  parts = good;
  parts.peer_sets.clear();
  EXPECT_NE(failure().find("peer set app=web"), std::string::npos);
  parts = good;
  parts.allow_list->peer_sets.clear();
  EXPECT_NE(failure().find("refers to a peer set"), std::string::npos);
}

TEST_F(HalfAState, AMemberWithoutARecordIsLeftOut) {
  parts.pods.erase(key("shop/web"));
  const auto snapshot = assembled(parts);
  EXPECT_TRUE(snapshot->allow_list().peer_sets.front()->members.empty());
  EXPECT_FALSE(decide(snapshot.get(), PolicyDirection::ingress, {.workload = nullptr, .address = ip("10.0.0.2")}, Port{80}).allowed());
}

TEST_F(HalfAState, ProbesOfThePodItselfAreKnownAndOnlyThose) {
  parts.probe_ports = {{Port{8080}, "/healthz"}, {Port{5432}, "/app-probe/5432"}, {Port{9090}, ""}};
  parts.settings->node_addresses = {ip("192.168.0.9"), ip("192.168.0.1")};
  const auto snapshot = assembled(parts);
  const Peer node{.workload = nullptr, .address = ip("192.168.0.1")};
  EXPECT_EQ(decide(snapshot.get(), PolicyDirection::ingress, node, Port{8080}).enforced.basis, Basis::node_probe);
  EXPECT_EQ(decide(snapshot.get(), PolicyDirection::ingress, node, Port{9090}).enforced.basis, Basis::node_probe);
  EXPECT_EQ(decide(snapshot.get(), PolicyDirection::ingress, node, Port{80}).enforced.basis, Basis::no_rule);
  // The node asks the sidecar about it: whoever comes to the port itself from the node's address is somebody else.
  EXPECT_EQ(decide(snapshot.get(), PolicyDirection::ingress, node, Port{5432}).enforced.basis, Basis::no_rule);
  EXPECT_TRUE(snapshot->topology().find("shop", "web")->probe_ports.empty());
}

}  // namespace
}  // namespace postern::test
