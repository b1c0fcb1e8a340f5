#include "authz/snapshot.hpp"

#include <gtest/gtest.h>

#include <set>

#include "authz/topology.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

using Kind = Destination::Kind;

class SnapshotIdentity : public testing::Test {
 protected:
  SnapshotIdentity() {
    c.ns("shop");
    c.pod("shop/db", "10.0.0.3");
    c.pod("shop/web", "10.0.0.1").workload.service_account = "web";
    c.pod("shop/bare", "10.0.0.4").workload.uid.clear();
    snapshot = c.compile("shop/db");
  }

  IdentityLookup identify(std::string_view id, std::string_view source = "10.0.0.1") const {
    return snapshot->identify(SpiffeId::parse(id).value(), ip(source));
  }

  ClusterBuilder c;
  std::shared_ptr<const PolicySnapshot> snapshot;
};

TEST_F(SnapshotIdentity, APodsIdIsItsRecordFromWhereverItCalls) {
  const auto found = identify("spiffe://example.org/ns/shop/sa/web/pod/web/uid-web", "203.0.113.1");
  EXPECT_EQ(found.error, IdentityError::none);
  ASSERT_NE(found.workload, nullptr);
  EXPECT_EQ(found.workload->name, "web");
}

TEST_F(SnapshotIdentity, WhatIsNotThatPodHasItsOwnReason) {
  const std::vector<std::pair<const char*, IdentityError>> cases{
      {"spiffe://other.org/ns/shop/sa/web/pod/web/uid-web", IdentityError::wrong_trust_domain},
      {"spiffe://example.org/postern/control", IdentityError::not_a_workload},
      {"spiffe://example.org", IdentityError::not_a_workload},
      {"spiffe://example.org/ns/shop/sa/web/pod/gone/uid-gone", IdentityError::unknown_workload},
      {"spiffe://example.org/ns/other/sa/web/pod/web/uid-web", IdentityError::unknown_workload},
      {"spiffe://example.org/ns/shop/sa/web/pod/web/uid-yesterday", IdentityError::uid_mismatch},
      {"spiffe://example.org/ns/shop/sa/web/pod/web", IdentityError::uid_mismatch},
      {"spiffe://example.org/ns/shop/sa/default/pod/bare/some-uid", IdentityError::uid_mismatch},
      {"spiffe://example.org/ns/shop/sa/default/pod/web/uid-web", IdentityError::account_mismatch},
  };
  for (const auto& [id, error] : cases) {
    const auto found = identify(id);
    EXPECT_EQ(found.error, error) << id << ": " << name_of(found.error);
    EXPECT_EQ(found.workload, nullptr) << id;
  }
  EXPECT_EQ(identify("spiffe://example.org/ns/shop/sa/default/pod/bare").workload->name, "bare");
}

TEST_F(SnapshotIdentity, AnIdOfAnAccountNeedsTheAddressOfOneOfItsPods) {
  EXPECT_EQ(identify("spiffe://example.org/ns/shop/sa/web", "10.0.0.1").workload->name, "web");
  EXPECT_EQ(identify("spiffe://example.org/ns/shop/sa/default", "10.0.0.1").error, IdentityError::address_mismatch);
  EXPECT_EQ(identify("spiffe://example.org/ns/other/sa/web", "10.0.0.1").error, IdentityError::address_mismatch);
  EXPECT_EQ(identify("spiffe://example.org/ns/shop/sa/web", "10.0.0.99").error, IdentityError::address_mismatch);
}

TEST_F(SnapshotIdentity, EndedPodsAreUnknown) {
  c.view.pods.at(key("shop/web")).phase = PodPhase::succeeded;
  snapshot = c.compile("shop/db");
  EXPECT_EQ(identify("spiffe://example.org/ns/shop/sa/web/pod/web/uid-web").error, IdentityError::unknown_workload);
  EXPECT_EQ(identify("spiffe://example.org/ns/shop/sa/web", "10.0.0.1").error, IdentityError::address_mismatch);
}

TEST(SnapshotAddress, OfSeveralClaimsTheLivingAndTheMeshedCount) {
  ClusterBuilder c;
  c.pod("shop/a", "10.0.0.1").terminating = true;
  c.pod("shop/b", "10.0.0.1").workload.meshed = false;
  EXPECT_EQ(c.compile("shop/a")->workload_at(ip("10.0.0.1"))->name, "b");
  c.pod("shop/c", "10.0.0.1");
  EXPECT_EQ(c.compile("shop/a")->workload_at(ip("10.0.0.1"))->name, "c");
  EXPECT_EQ(c.compile("shop/a")->workload_at(ip("10.0.0.2")), nullptr);
}

class SnapshotResolve : public testing::Test {
 protected:
  SnapshotResolve() {
    c.ns("shop");
    c.pod("shop/client", "10.0.0.1");
    for (int i = 1; i <= 3; ++i) {
      const std::string n = std::to_string(i);
      Pod& pod = c.pod("shop/db-" + n, "10.0.1." + n, {{"app", "db"}});
      pod.workload.addresses.push_back(ip("fd00::1:" + n));
      pod.workload.named_ports = {{"sql", Protocol::tcp, Port{static_cast<std::uint16_t>(5430 + i)}}};
      pod.node_name = "node-" + n;
    }
    auto& db = c.service("shop/db", "10.96.0.1", {{"app", "db"}}, {port(80, std::string("sql"))});
    db.cluster_ips.push_back(ip("fd96::1"));
    db.external_ips = {ip("198.51.100.7")};
    db.load_balancer_ips = {ip("198.51.100.8")};
    db.ports.front().node_port = Port{30080};
    c.view.nodes["node-2"] = {.name = "node-2", .addresses = {ip("192.168.0.2")}, .pod_cidrs = {}};
    c.settings.cluster_cidrs = {cidr("10.0.0.0/8"), cidr("192.168.0.0/24")};
  }

  static ServicePort port(std::uint16_t number, std::optional<std::variant<Port, std::string>> target = {}) {
    return {.name = "", .protocol = Protocol::tcp, .port = Port{number}, .target = std::move(target), .node_port = {}};
  }

  Destination resolve(const SocketAddress& original, std::uint32_t pick = 0, std::uint32_t attempt = 0) {
    snapshots_.push_back(c.compile("shop/client"));
    return snapshots_.back()->resolve(original, pick, attempt);
  }

  // Every address that picks 0..5 lead to.
  std::set<std::string> all(const SocketAddress& original) {
    std::set<std::string> result;
    for (std::uint32_t pick = 0; pick < 6; ++pick) {
      const Destination destination = resolve(original, pick);
      result.insert(destination.kind == Kind::no_endpoint ? "no endpoint" : destination.address.text());
    }
    return result;
  }

  ClusterBuilder c;

 private:
  std::vector<std::shared_ptr<const PolicySnapshot>> snapshots_;  // destinations point into them
};

TEST_F(SnapshotResolve, EveryAddressOfAServiceLeadsToItsPodsAndTheirOwnTargetPort) {
  const std::set<std::string> v4{"10.0.1.1:5431", "10.0.1.2:5432", "10.0.1.3:5433"};
  const auto originals = {at("10.96.0.1", 80), at("198.51.100.7", 80), at("198.51.100.8", 80), at("192.168.0.2", 30080)};
  for (const auto& original : originals) EXPECT_EQ(all(original), v4) << original.text();
  EXPECT_EQ(all(at("fd96::1", 80)), (std::set<std::string>{"[fd00::1:1]:5431", "[fd00::1:2]:5432", "[fd00::1:3]:5433"}));
  const Destination first = resolve(at("10.96.0.1", 80));
  EXPECT_EQ(first.kind, Kind::workload);
  EXPECT_EQ(first.workload->name, "db-1");
  EXPECT_EQ(first.service, "shop/db");
  EXPECT_EQ(first.candidates, 3U);
}

TEST_F(SnapshotResolve, OnlyUsableEndpointsCount) {
  c.view.pods.at(key("shop/db-1")).ready = false;
  c.view.pods.at(key("shop/db-2")).terminating = true;
  EXPECT_EQ(all(at("10.96.0.1", 80)), (std::set<std::string>{"10.0.1.3:5433"}));
  c.view.services.at(key("shop/db")).publish_not_ready = true;
  EXPECT_EQ(all(at("10.96.0.1", 80)), (std::set<std::string>{"10.0.1.1:5431", "10.0.1.2:5432", "10.0.1.3:5433"}));
  c.view.pods.at(key("shop/db-2")).phase = PodPhase::succeeded;
  c.view.pods.at(key("shop/db-3")).phase = PodPhase::failed;
  c.view.pods.at(key("shop/db-1")).workload.named_ports.clear();  // the target port does not exist there
  EXPECT_EQ(all(at("10.96.0.1", 80)), (std::set<std::string>{"no endpoint"}));
}

TEST_F(SnapshotResolve, TargetPortIsANumberANameOrThePortItself) {
  auto& ports = c.view.services.at(key("shop/db")).ports;
  ports = {port(80, Port{8080}), port(81)};
  EXPECT_EQ(resolve(at("10.96.0.1", 80)).address, at("10.0.1.1", 8080));
  EXPECT_EQ(resolve(at("10.96.0.1", 81)).address, at("10.0.1.1", 81));
  ports = {port(80)};
  ports.front().protocol = Protocol::udp;
  EXPECT_EQ(resolve(at("10.96.0.1", 80)).kind, Kind::no_endpoint);
}

TEST_F(SnapshotResolve, AServiceWithoutSelectorOrWithoutThatPortHasNoEndpoint) {
  const Destination other_port = resolve(at("10.96.0.1", 81));
  EXPECT_EQ(other_port.kind, Kind::no_endpoint);
  EXPECT_EQ(other_port.service, "shop/db");
  EXPECT_EQ(other_port.candidates, 0U);
  c.view.services.at(key("shop/db")).selector.clear();
  EXPECT_EQ(resolve(at("10.96.0.1", 80)).kind, Kind::no_endpoint);
}

TEST_F(SnapshotResolve, InternalTrafficPolicyLocalStaysOnTheNode) {
  c.view.services.at(key("shop/db")).internal_traffic_local = true;
  c.view.pods.at(key("shop/client")).node_name = "node-2";
  EXPECT_EQ(all(at("10.96.0.1", 80)), (std::set<std::string>{"10.0.1.2:5432"}));
  c.view.pods.at(key("shop/client")).node_name = "node-9";
  EXPECT_EQ(all(at("10.96.0.1", 80)), (std::set<std::string>{"no endpoint"}));
}

TEST_F(SnapshotResolve, SessionAffinityKeepsOneEndpointAndRetriesGoOn) {
  c.view.services.at(key("shop/db")).client_ip_affinity = true;
  EXPECT_EQ(all(at("10.96.0.1", 80)).size(), 1U);
  std::set<std::string> tried;
  for (std::uint32_t attempt = 0; attempt < 3; ++attempt) tried.insert(resolve(at("10.96.0.1", 80), 0, attempt).address.text());
  EXPECT_EQ(tried.size(), 3U);
}

TEST_F(SnapshotResolve, AHostNetworkEndpointIsNoPod) {
  c.view.services.at(key("shop/db")).selector = {{"app", "agent"}};
  auto& agent = c.pod("shop/agent", "192.168.0.2", {{"app", "agent"}});
  agent.workload.host_network = true;
  agent.workload.named_ports = {{"sql", Protocol::tcp, Port{9}}};
  const Destination destination = resolve(at("10.96.0.1", 80));
  EXPECT_EQ(destination.kind, Kind::outside);
  EXPECT_EQ(destination.workload, nullptr);
  EXPECT_EQ(destination.address, at("192.168.0.2", 9));
}

TEST_F(SnapshotResolve, WhatIsNoService) {
  EXPECT_EQ(resolve(at("10.0.1.2", 1234)).kind, Kind::workload);
  EXPECT_EQ(resolve(at("10.0.1.2", 1234)).workload->name, "db-2");
  EXPECT_EQ(resolve(at("10.0.0.1", 1)).kind, Kind::self);
  EXPECT_EQ(resolve(at("203.0.113.1", 80)).kind, Kind::outside);
  EXPECT_EQ(resolve(at("10.200.0.1", 80)).kind, Kind::unknown);   // inside the cluster's ranges
  EXPECT_EQ(resolve(at("192.168.0.2", 22)).kind, Kind::outside);  // a node, and known as one
  EXPECT_EQ(resolve(at("192.168.0.77", 22)).kind, Kind::unknown);
  EXPECT_EQ(resolve(at("10.0.1.2", 30080)).kind, Kind::workload);  // a node port, but not at a node
}

}  // namespace
}  // namespace postern::test
