// The traps of the NetworkPolicy API that concern a connection, one test each, numbered. Those missing concern no single connection.
#include <gtest/gtest.h>

#include "authz/topology.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

// Three pods of one namespace and two of another, and nothing that isolates them yet.
class Traps : public testing::Test {
 protected:
  Traps() {
    c.ns("shop", {{"team", "a"}});
    c.ns("other", {{"team", "b"}});
    c.pod("shop/web", "10.0.0.1", {{"app", "web"}});
    c.pod("shop/api", "10.0.0.2", {{"app", "api"}});
    c.pod("shop/db", "10.0.0.3", {{"app", "db"}, {"tier", "data"}});
    c.pod("other/web", "10.0.1.1", {{"app", "web"}});
    c.pod("other/job", "10.0.1.2");
  }

  bool in(std::string_view to, std::string_view from, std::uint16_t port = 80, Protocol protocol = Protocol::tcp) {
    return c.ingress(to, from, port, protocol).allowed();
  }
  bool out(std::string_view from, std::string_view to, std::uint16_t port = 80, Protocol protocol = Protocol::tcp) {
    return c.egress(from, to, port, protocol).allowed();
  }

  ClusterBuilder c;
};

TEST_F(Traps, Trap01IsolationIsPerDirection) {
  EXPECT_EQ(c.ingress("shop/db", "shop/api", 80).enforced.basis, Basis::not_isolated);
  c.policy("shop/deny", labelled({{"app", "db"}}));
  EXPECT_EQ(c.ingress("shop/db", "shop/api", 80).enforced.basis, Basis::no_rule);
  EXPECT_TRUE(out("shop/db", "shop/api"));  // selected, but the type is not listed
  EXPECT_TRUE(in("shop/api", "shop/db"));   // not selected
}

TEST_F(Traps, Trap02BothEndsMustAllow) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {}, .peers = {pods({})}}};
  c.egress_policy("shop/web", labelled({{"app", "web"}}));
  EXPECT_TRUE(in("shop/db", "shop/web"));
  EXPECT_FALSE(out("shop/web", "shop/db"));
}

TEST_F(Traps, Trap03PoliciesAddUp) {
  c.policy("shop/a").ingress = {{.ports = {on(80)}, .peers = {pods(labelled({{"app", "web"}}))}}};
  c.policy("shop/b").ingress = {{.ports = {on(81)}, .peers = {pods(labelled({{"app", "api"}}))}}};
  c.policy("shop/c");
  EXPECT_TRUE(in("shop/db", "shop/web", 80));
  EXPECT_TRUE(in("shop/db", "shop/api", 81));
  EXPECT_FALSE(in("shop/db", "shop/web", 81));
  EXPECT_FALSE(in("shop/db", "shop/api", 80));
}

TEST_F(Traps, Trap04EmptyPodSelectorIsTheWholeNamespace) {
  c.policy("shop/deny");
  EXPECT_FALSE(in("shop/web", "shop/api"));
  EXPECT_FALSE(in("shop/db", "shop/api"));
  EXPECT_TRUE(in("other/web", "shop/api"));
}

TEST_F(Traps, Trap05EmptyPeerSelectors) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {}, .peers = {pods({})}}};
  EXPECT_TRUE(in("shop/db", "shop/web"));
  EXPECT_FALSE(in("shop/db", "other/web"));  // podSelector alone stays in the policy's namespace
  policy.ingress = {{.ports = {}, .peers = {namespaces({})}}};
  EXPECT_TRUE(in("shop/db", "shop/web"));
  EXPECT_TRUE(in("shop/db", "other/web"));
  EXPECT_FALSE(in("shop/db", "192.0.2.1"));  // all namespaces are still pods only
}

TEST_F(Traps, Trap06OneItemIsAndTwoItemsAreOr) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {}, .peers = {both(labelled({{"team", "b"}}), labelled({{"app", "web"}}))}}};
  EXPECT_TRUE(in("shop/db", "other/web"));
  EXPECT_FALSE(in("shop/db", "other/job"));
  EXPECT_FALSE(in("shop/db", "shop/web"));
  policy.ingress = {{.ports = {}, .peers = {namespaces(labelled({{"team", "b"}})), pods(labelled({{"app", "web"}}))}}};
  EXPECT_TRUE(in("shop/db", "other/job"));
  EXPECT_TRUE(in("shop/db", "shop/web"));
  EXPECT_FALSE(in("shop/db", "shop/api"));
}

TEST_F(Traps, Trap07NoRulesAllowNothingAnEmptyRuleAllowsAll) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  EXPECT_FALSE(in("shop/db", "shop/web"));
  policy.ingress = {{}};
  EXPECT_TRUE(in("shop/db", "shop/web"));
  EXPECT_TRUE(in("shop/db", "192.0.2.1", 65535, Protocol::sctp));
}

TEST_F(Traps, Trap08NoPeersIsAnybodyNoPortsIsEveryPort) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {on(80)}, .peers = {}}};
  EXPECT_TRUE(in("shop/db", "192.0.2.1", 80));
  EXPECT_FALSE(in("shop/db", "192.0.2.1", 81));
  const auto origin = *c.ingress("shop/db", "192.0.2.1", 80).enforced.origin;
  EXPECT_EQ(origin.peer, -1);
  policy.ingress = {{.ports = {}, .peers = {pods(labelled({{"app", "web"}}))}}};
  EXPECT_TRUE(in("shop/db", "shop/web", 1));
  EXPECT_TRUE(in("shop/db", "shop/web", 65535, Protocol::udp));
}

TEST_F(Traps, Trap09PolicyTypesDefaults) {
  NetworkPolicy policy;
  policy.default_policy_types();
  EXPECT_TRUE(policy.isolates_ingress);
  EXPECT_FALSE(policy.isolates_egress);
  policy.egress = {{}};
  policy.default_policy_types();
  EXPECT_TRUE(policy.isolates_ingress);
  EXPECT_TRUE(policy.isolates_egress);

  auto& egress_only = c.egress_policy("shop/egress");
  egress_only.ingress = {{.ports = {}, .peers = {pods(labelled({{"app", "none"}}))}}};
  EXPECT_EQ(c.ingress("shop/db", "shop/web", 80).enforced.basis, Basis::not_isolated);
  // A rule of a direction that is not in policyTypes means nothing, also where another policy isolates.
  c.policy("shop/deny");
  egress_only.ingress = {{}};
  EXPECT_FALSE(in("shop/db", "shop/web"));
}

TEST_F(Traps, Trap10ExceptCarvesOnlyItsOwnBlock) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {}, .peers = {block("192.0.2.0/24", {"192.0.2.128/25"})}}};
  EXPECT_TRUE(in("shop/db", "192.0.2.1"));
  EXPECT_FALSE(in("shop/db", "192.0.2.129"));
  EXPECT_FALSE(in("shop/db", "192.0.3.1"));
  c.policy("shop/more").ingress = {{.ports = {on(443)}, .peers = {block("192.0.2.192/26")}}};
  EXPECT_TRUE(in("shop/db", "192.0.2.193", 443));
  EXPECT_FALSE(in("shop/db", "192.0.2.193", 80));
  EXPECT_FALSE(in("shop/db", "192.0.2.129", 443));
}

TEST_F(Traps, Trap11PortItemWithoutPortIsOneProtocol) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {every(Protocol::udp)}, .peers = {}}};
  EXPECT_TRUE(in("shop/db", "shop/web", 53, Protocol::udp));
  EXPECT_FALSE(in("shop/db", "shop/web", 53, Protocol::tcp));
  EXPECT_FALSE(in("shop/db", "shop/web", 53, Protocol::sctp));
  EXPECT_EQ(PolicyPort{}.protocol, Protocol::tcp);
}

TEST_F(Traps, Trap12EndPortIsInclusive) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {range(8000, 8080), range(65000, 65535)}, .peers = {}}};
  for (const std::uint16_t port : std::vector<std::uint16_t>{8000, 8001, 8080, 65000, 65535})
    EXPECT_TRUE(in("shop/db", "shop/web", port)) << port;
  for (const std::uint16_t port : std::vector<std::uint16_t>{7999, 8081, 64999}) EXPECT_FALSE(in("shop/db", "shop/web", port)) << port;
}

TEST_F(Traps, Trap13NamedPortResolvesOnDestination) {
  c.view.pods.at(key("shop/db")).workload.named_ports = {{"sql", Protocol::tcp, Port{5432}}, {"sql", Protocol::udp, Port{5433}}};
  c.view.pods.at(key("shop/api")).workload.named_ports = {{"sql", Protocol::tcp, Port{3306}}};
  c.view.pods.at(key("shop/web")).workload.named_ports = {{"sql", Protocol::tcp, Port{1}}};
  c.policy("shop/in", labelled({{"app", "db"}})).ingress = {{.ports = {named("sql"), named("missing")}, .peers = {pods({})}}};
  EXPECT_TRUE(in("shop/db", "shop/web", 5432));
  EXPECT_FALSE(in("shop/db", "shop/web", 1));     // not the source's
  EXPECT_FALSE(in("shop/db", "shop/web", 5433));  // not the other protocol's
  EXPECT_FALSE(in("shop/db", "shop/web", 5432, Protocol::udp));

  auto& policy = c.egress_policy("shop/out", labelled({{"app", "web"}}));
  for (const auto& peer : {pods({}), namespaces({}), block("10.0.0.0/8")}) {
    policy.egress = {{.ports = {named("sql")}, .peers = {peer}}};
    EXPECT_TRUE(out("shop/web", "shop/db", 5432));
    EXPECT_TRUE(out("shop/web", "shop/api", 3306));
    EXPECT_FALSE(out("shop/web", "shop/db", 3306));
    EXPECT_FALSE(out("shop/web", "other/web", 5432));  // has no port of that name
    EXPECT_FALSE(out("shop/web", "10.200.0.1", 5432));
  }
  policy.egress = {{.ports = {named("sql")}, .peers = {}}};
  EXPECT_TRUE(out("shop/web", "10.0.0.2", 3306));  // the pod at the address
  EXPECT_FALSE(out("shop/web", "192.0.2.1", 3306));
}

TEST_F(Traps, Trap13NamedPortThroughTheAddressAloneInStrictPlaintext) {
  c.view.pods.at(key("shop/api")).workload.named_ports = {{"sql", Protocol::tcp, Port{3306}}};
  c.egress_policy("shop/out", labelled({{"app", "web"}})).egress = {{.ports = {named("sql")}, .peers = {block("10.0.0.0/24")}}};
  const auto snapshot = c.compile("shop/web");
  const Peer unauthenticated{.workload = nullptr, .address = ip("10.0.0.2"), .matches_peer_sets = false};
  EXPECT_TRUE(decide(snapshot.get(), PolicyDirection::egress, unauthenticated, Port{3306}).allowed());
  EXPECT_FALSE(decide(snapshot.get(), PolicyDirection::egress, unauthenticated, Port{3307}).allowed());
}

TEST_F(Traps, Trap14OtherProtocolsDoNotWidenTcpButIsolateIt) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {on(53, Protocol::udp), on(9, Protocol::sctp)}, .peers = {}}};
  EXPECT_FALSE(in("shop/db", "shop/web", 53));
  EXPECT_FALSE(in("shop/db", "shop/web", 9));
  EXPECT_TRUE(in("shop/db", "shop/web", 53, Protocol::udp));
  EXPECT_TRUE(in("shop/db", "shop/web", 9, Protocol::sctp));
  EXPECT_FALSE(in("shop/db", "shop/web", 9, Protocol::udp));
}

TEST_F(Traps, Trap16NamespaceByNameLabel) {
  c.pod("unlisted/web", "10.0.2.1");  // no Namespace object: the label is there all the same
  c.view.namespaces.at("other").labels[std::string(namespace_name_label)] = "forged";
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  const auto from = [&](std::string name) {
    policy.ingress = {{.ports = {}, .peers = {namespaces(labelled({{std::string(namespace_name_label), std::move(name)}}))}}};
  };
  from("unlisted");
  EXPECT_TRUE(in("shop/db", "unlisted/web"));
  from("forged");
  EXPECT_FALSE(in("shop/db", "other/web"));
  from("other");
  EXPECT_TRUE(in("shop/db", "other/web"));
}

TEST_F(Traps, Trap17NegativeOperatorsMatchWithoutTheKey) {
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {}, .peers = {both({}, expression("app", SelectorOperator::not_in, {"web"}))}}};
  EXPECT_TRUE(in("shop/db", "other/job"));
  EXPECT_FALSE(in("shop/db", "other/web"));
  policy.ingress = {{.ports = {}, .peers = {namespaces(expression("env", SelectorOperator::does_not_exist))}}};
  EXPECT_TRUE(in("shop/db", "other/web"));
  c.view.namespaces.at("other").labels["env"] = "prod";  // an edit of a namespace's labels counts
  EXPECT_FALSE(in("shop/db", "other/web"));
}

TEST_F(Traps, Trap18APodCannotBlockItself) {
  c.policy("shop/deny");
  c.egress_policy("shop/deny-out");
  c.service("shop/db", "10.96.0.1", {{"app", "db"}},
            {{.name = "", .protocol = Protocol::tcp, .port = Port{80}, .target = Port{5432}, .node_port = {}}});
  const auto snapshot = c.compile("shop/db");
  for (const auto& original : {at("127.0.0.1", 80), at("::1", 80), at("10.0.0.3", 80), at("10.96.0.1", 80)}) {
    EXPECT_EQ(snapshot->resolve(original, 0).kind, Destination::Kind::self) << original.text();
  }
  EXPECT_EQ(snapshot->resolve(at("10.96.0.1", 80), 0).address, at("10.0.0.3", 5432));
}

TEST_F(Traps, Trap19TheOwnNodeReachesWhatNodeTrafficSays) {
  auto& db = c.view.pods.at(key("shop/db"));
  db.host_addresses = {ip("192.168.0.1")};
  db.workload.probe_ports = {{Port{8081}, "/healthz"}, {Port{5432}, "/app-probe/5432"}};
  c.policy("shop/deny");
  c.egress_policy("shop/deny-out");
  EXPECT_EQ(c.ingress("shop/db", "192.168.0.1", 8081).enforced.basis, Basis::node_probe);
  EXPECT_TRUE(in("shop/db", "192.168.0.1", 8081));
  EXPECT_FALSE(in("shop/db", "192.168.0.1", 5432));
  EXPECT_FALSE(in("shop/db", "192.168.0.2", 8081));  // another node is an ordinary address
  EXPECT_FALSE(out("shop/db", "192.168.0.1", 8081));
  c.settings.node_traffic = NodeTraffic::all;
  EXPECT_EQ(c.ingress("shop/db", "192.168.0.1", 5432).enforced.basis, Basis::node);
  EXPECT_TRUE(out("shop/db", "192.168.0.1", 10250));
  c.settings.node_traffic = NodeTraffic::none;
  EXPECT_FALSE(in("shop/db", "192.168.0.1", 8081));
  c.policy("shop/allow").ingress = {{.ports = {on(5432)}, .peers = {block("192.168.0.1/32")}}};
  EXPECT_EQ(c.ingress("shop/db", "192.168.0.1", 5432).enforced.basis, Basis::rule);
}

TEST_F(Traps, Trap19APodBehindItsNodesAddressIsNotTheNode) {
  auto& db = c.view.pods.at(key("shop/db"));
  db.host_addresses = {ip("192.168.0.1")};
  db.workload.probe_ports = {{Port{8081}, "/healthz"}};
  c.policy("shop/deny");
  const auto snapshot = c.compile("shop/db");
  const Peer masqueraded{.workload = snapshot->topology().find("other", "web"), .address = ip("192.168.0.1")};
  EXPECT_FALSE(decide(snapshot.get(), PolicyDirection::ingress, masqueraded, Port{8081}).allowed());
}

TEST_F(Traps, Trap21ServicesAreJudgedByPodAndTargetPort) {
  c.service("shop/db", "10.96.0.1", {{"app", "db"}},
            {{.name = "", .protocol = Protocol::tcp, .port = Port{80}, .target = Port{5432}, .node_port = {}}});
  c.egress_policy("shop/out", labelled({{"app", "web"}})).egress = {{.ports = {on(5432)}, .peers = {pods(labelled({{"app", "db"}}))}}};
  const auto snapshot = c.compile("shop/web");
  const Destination destination = snapshot->resolve(at("10.96.0.1", 80), 0);
  ASSERT_EQ(destination.kind, Destination::Kind::workload);
  EXPECT_EQ(destination.service, "shop/db");
  const Peer peer{.workload = destination.workload, .address = destination.address.address};
  EXPECT_TRUE(decide(snapshot.get(), PolicyDirection::egress, peer, destination.address.port).allowed());
  EXPECT_FALSE(out("shop/web", "10.96.0.1", 80));
}

TEST_F(Traps, Trap22HostNetworkPodsAreNodeAddresses) {
  auto& agent = c.pod("shop/agent", "192.168.0.9", {{"app", "web"}});
  agent.workload.host_network = true;
  agent.workload.named_ports = {{"sql", Protocol::tcp, Port{5432}}};
  c.policy("shop/all").ingress = {{.ports = {}, .peers = {pods({})}}};
  EXPECT_EQ(c.ingress("shop/agent", "other/job", 80).enforced.basis, Basis::not_isolated);
  EXPECT_FALSE(in("shop/db", "shop/agent"));
  EXPECT_FALSE(in("shop/db", "192.168.0.9"));
  const auto snapshot = c.compile("shop/db");
  const Peer by_record{.workload = snapshot->topology().find("shop", "agent"), .address = ip("192.168.0.9")};
  EXPECT_FALSE(decide(snapshot.get(), PolicyDirection::ingress, by_record, Port{80}).allowed());
  c.egress_policy("shop/out", labelled({{"app", "db"}})).egress = {{.ports = {named("sql")}, .peers = {}}};
  EXPECT_FALSE(out("shop/db", "192.168.0.9", 5432));
  c.policy("shop/nodes").ingress = {{.ports = {}, .peers = {block("192.168.0.0/16")}}};
  EXPECT_TRUE(in("shop/db", "192.168.0.9"));
}

TEST_F(Traps, Trap23IpBlockGoesByTheAddressWhoeverHasIt) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {}, .peers = {block("10.0.0.0/24")}}};
  EXPECT_TRUE(in("shop/db", "shop/web"));
  EXPECT_FALSE(in("shop/db", "other/web"));
}

TEST_F(Traps, Trap28EndedPodsAreNobodyTerminatingOnesStay) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {}, .peers = {pods(labelled({{"app", "web"}}))}}};
  auto& web = c.view.pods.at(key("shop/web"));
  web.terminating = true;
  EXPECT_TRUE(in("shop/db", "shop/web"));
  for (const PodPhase phase : {PodPhase::succeeded, PodPhase::failed}) {
    web.phase = phase;
    EXPECT_FALSE(in("shop/db", "shop/web"));
    EXPECT_FALSE(in("shop/db", "10.0.0.1"));
    EXPECT_FALSE(compile(c.view, key("shop/web"), c.settings, 1));
  }
  c.pod("shop/heir", "10.0.0.1", {{"app", "api"}});  // the address is somebody else's now
  EXPECT_EQ(c.compile("shop/db")->workload_at(ip("10.0.0.1"))->name, "heir");
}

TEST_F(Traps, Trap30DualStack) {
  c.view.pods.at(key("shop/web")).workload.addresses = {ip("10.0.0.1"), ip("fd00::1")};
  auto& policy = c.policy("shop/db", labelled({{"app", "db"}}));
  policy.ingress = {{.ports = {}, .peers = {block("fd00::/64", {"fd00::8000:0/97"})}}};
  EXPECT_TRUE(in("shop/db", "fd00::1"));
  EXPECT_FALSE(in("shop/db", "10.0.0.1"));
  EXPECT_FALSE(in("shop/db", "fd00::8000:1"));
  policy.ingress = {{.ports = {}, .peers = {pods(labelled({{"app", "web"}}))}}};
  EXPECT_TRUE(in("shop/db", "fd00::1"));
  EXPECT_TRUE(in("shop/db", "::ffff:10.0.0.1"));
}

}  // namespace
}  // namespace postern::test
