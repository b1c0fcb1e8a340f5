#include <gtest/gtest.h>

#include <algorithm>

#include "authz/topology.hpp"
#include "tests/unit/authz/cluster_builder.hpp"
#include "tests/unit/authz/random_cluster.hpp"

namespace postern::test {
namespace {

TEST(Decide, AgreesWithAPlainReadingOfTheApi) {
  std::size_t seen[2] = {0, 0};
  for (std::uint32_t seed = 1000; seed < 1500; ++seed) {
    RandomCluster random(seed);
    const PlainReading plain(random.c);
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const auto snapshot = random.c.compile(id.text());
      for (int i = 0; i < 30; ++i) {
        const auto direction = i % 2 == 0 ? PolicyDirection::ingress : PolicyDirection::egress;
        const Peer peer = random.peer(*snapshot);
        const Port port = random.port();
        const Protocol protocol = random.protocol();
        const Verdict verdict = decide(snapshot.get(), direction, peer, port, protocol);
        for (const Plane plane : {Plane::enforced, Plane::pending}) {
          const Decision& decision = plane == Plane::enforced ? verdict.enforced : verdict.pending;
          const bool by_node = decision.basis == Basis::node || decision.basis == Basis::node_probe;
          const bool expected = plain.allows(pod, direction, peer, port, protocol, plane);
          ASSERT_EQ(decision.allowed && !by_node, expected) << "seed " << seed << " " << id.text() << " " << name_of(direction) << " "
                                                            << peer.address.text() << " " << name_of(protocol) << " " << port.number;
          ++seen[expected ? 1 : 0];
        }
      }
    }
  }
  EXPECT_GT(seen[0], 5000U);
  EXPECT_GT(seen[1], 5000U);
}

TEST(Decide, WithoutASnapshotNothingIsAllowed) {
  const Verdict verdict = decide(nullptr, PolicyDirection::ingress, Peer{.workload = nullptr, .address = ip("10.0.0.1")}, Port{80});
  EXPECT_FALSE(verdict.allowed());
  EXPECT_FALSE(verdict.pending.allowed);
  EXPECT_EQ(verdict.enforced.basis, Basis::no_policy);
}

class DecideAudit : public testing::Test {
 protected:
  DecideAudit() {
    c.ns("shop");
    c.pod("shop/web", "10.0.0.1", {{"app", "web"}});
    c.pod("shop/db", "10.0.0.3", {{"app", "db"}});
  }
  ClusterBuilder c;
};

TEST_F(DecideAudit, AnAuditPolicyNeitherIsolatesNorAllows) {
  auto& audit = c.policy("shop/audit");
  audit.mode = EnforcementMode::audit;
  const Verdict isolated = c.ingress("shop/db", "shop/web", 80);
  EXPECT_TRUE(isolated.allowed());
  EXPECT_EQ(isolated.enforced.basis, Basis::not_isolated);
  EXPECT_EQ(isolated.pending.basis, Basis::no_rule);
  EXPECT_TRUE(isolated.differs());

  c.policy("shop/deny");
  audit.ingress = {{}};
  const Verdict denied = c.ingress("shop/db", "shop/web", 80);
  EXPECT_FALSE(denied.allowed());  // the audit policy's allow does not count
  EXPECT_TRUE(denied.pending.allowed);
  EXPECT_EQ(denied.pending.origin->policy, "audit");
}

TEST_F(DecideAudit, TheEnforcedRuleIsNamedWhereAnAuditRuleComesFirst) {
  auto& first = c.policy("shop/a");
  first.mode = EnforcementMode::audit;
  first.ingress = {{.ports = {on(80)}, .peers = {pods(labelled({{"app", "web"}}))}}};
  c.policy("shop/b").ingress = {{.ports = {range(70, 90)}, .peers = {pods({})}}};
  const Verdict verdict = c.ingress("shop/db", "shop/web", 80);
  EXPECT_EQ(verdict.enforced.origin->policy, "b");
  EXPECT_EQ(verdict.pending.origin->policy, "a");
  EXPECT_FALSE(verdict.differs());
}

TEST_F(DecideAudit, ModeComesFromThePolicyThenTheNamespaceAndTheMeshOverridesBoth) {
  auto& policy = c.policy("shop/deny");
  EXPECT_FALSE(c.ingress("shop/db", "shop/web", 80).allowed());
  c.view.namespaces.at("shop").mode = EnforcementMode::audit;
  EXPECT_TRUE(c.ingress("shop/db", "shop/web", 80).allowed());
  policy.mode = EnforcementMode::enforce;
  EXPECT_FALSE(c.ingress("shop/db", "shop/web", 80).allowed());
  c.settings.audit = true;
  const Verdict verdict = c.ingress("shop/db", "shop/web", 80);
  EXPECT_TRUE(verdict.allowed());
  EXPECT_FALSE(verdict.pending.allowed);
}

TEST_F(DecideAudit, DefaultDenyIsolatesEveryMeshedPodBothWays) {
  c.settings.default_policy = DefaultPolicy::deny;
  EXPECT_EQ(c.ingress("shop/db", "shop/web", 80).enforced.basis, Basis::no_rule);
  EXPECT_EQ(c.egress("shop/db", "shop/web", 80).enforced.basis, Basis::no_rule);
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {on(80)}, .peers = {pods({})}}};
  EXPECT_TRUE(c.ingress("shop/db", "shop/web", 80).allowed());
  c.view.pods.at(key("shop/web")).workload.meshed = false;
  EXPECT_EQ(c.egress("shop/web", "shop/db", 80).enforced.basis, Basis::not_isolated);
  c.settings.audit = true;
  const Verdict audit = c.egress("shop/db", "shop/web", 80);
  EXPECT_TRUE(audit.allowed());
  EXPECT_FALSE(audit.pending.allowed);
}

TEST(Decide, PendingLeavesOutWhatAnAuditPolicyReplaces) {
  using Mode = std::optional<EnforcementMode>;
  struct Policy {
    const char* name;
    std::vector<std::uint16_t> ports;  // open to everybody
    Mode mode;
    std::vector<std::string> replaces;
  };
  const Mode audit = EnforcementMode::audit;
  const Mode enforce = EnforcementMode::enforce;
  struct Row {
    const char* what;
    std::vector<Policy> policies;
    std::vector<std::uint16_t> enforced;  // of 80, 81 and 82: what each plane lets through
    std::vector<std::uint16_t> pending;
  };
  const std::vector<Row> rows = {
      {"alone", {{"wide", {80, 81}, {}, {}}, {"refined", {80}, audit, {"wide"}}}, {80, 81}, {80}},
      {"other allows remain",
       {{"extra", {81}, {}, {}}, {"refined", {80}, audit, {"wide"}}, {"wide", {80, 81, 82}, {}, {}}},
       {80, 81, 82},
       {80, 81}},
      {"the replacing policy widens", {{"narrow", {80}, {}, {}}, {"wider", {80, 81}, audit, {"narrow"}}}, {80}, {80, 81}},
      {"two at once", {{"a", {80}, {}, {}}, {"b", {81}, {}, {}}, {"refined", {82}, audit, {"a", "b"}}}, {80, 81}, {82}},
      {"chain: the last one stays",
       {{"wide", {80, 81, 82}, {}, {}}, {"narrower", {80, 81}, audit, {"wide"}}, {"narrowest", {80}, audit, {"narrower"}}},
       {80, 81, 82},
       {80}},
      {"an audit policy is replaced", {{"first", {80}, audit, {}}, {"second", {81}, audit, {"first"}}}, {80, 81, 82}, {81}},
      {"enforced it means nothing", {{"wide", {80, 81}, {}, {}}, {"refined", {80}, enforce, {"wide"}}}, {80, 81}, {80, 81}},
      {"enforced in the middle of a chain",
       {{"wide", {80, 81}, {}, {}}, {"middle", {82}, enforce, {"wide"}}, {"last", {80}, audit, {"middle"}}},
       {80, 81, 82},
       {80, 81}},
      {"a name that does not exist", {{"wide", {80}, {}, {}}, {"refined", {81}, audit, {"gone"}}}, {80}, {80, 81}},
  };
  for (const auto direction : {PolicyDirection::ingress, PolicyDirection::egress}) {
    for (const Row& row : rows) {
      SCOPED_TRACE(std::string(row.what) + " " + std::string(name_of(direction)));
      ClusterBuilder c;
      c.ns("shop");
      c.pod("shop/web", "10.0.0.1");
      c.pod("shop/db", "10.0.0.3", {{"app", "db"}});
      for (const Policy& policy : row.policies) {
        const std::string name = std::string("shop/") + policy.name;
        const LabelSelector selector = labelled({{"app", "db"}});
        NetworkPolicy& made = direction == PolicyDirection::ingress ? c.policy(name, selector) : c.egress_policy(name, selector);
        auto& rules = direction == PolicyDirection::ingress ? made.ingress : made.egress;
        for (const std::uint16_t port : policy.ports) rules.push_back({.ports = {on(port)}, .peers = {}});
        made.mode = policy.mode;
        made.replaces = policy.replaces;
      }
      for (const std::uint16_t port : std::initializer_list<std::uint16_t>{80, 81, 82}) {
        const Verdict verdict = c.verdict(direction, "shop/db", "shop/web", port);
        EXPECT_EQ(verdict.enforced.allowed, std::count(row.enforced.begin(), row.enforced.end(), port) == 1) << port;
        EXPECT_EQ(verdict.pending.allowed, std::count(row.pending.begin(), row.pending.end(), port) == 1) << port;
      }
    }
  }
}

TEST_F(DecideAudit, WithoutTheReplacedPolicyThePodMayBeOpen) {
  c.policy("shop/deny", labelled({{"app", "db"}}));
  auto& elsewhere = c.policy("shop/elsewhere", labelled({{"app", "other"}}));  // it need not select the same pods
  elsewhere.replaces = {"deny"};
  elsewhere.mode = EnforcementMode::audit;
  const Verdict verdict = c.ingress("shop/db", "shop/web", 80);
  EXPECT_FALSE(verdict.allowed());
  EXPECT_EQ(verdict.enforced.basis, Basis::no_rule);
  EXPECT_EQ(verdict.pending.basis, Basis::not_isolated);
  EXPECT_TRUE(verdict.differs());
}

TEST_F(DecideAudit, ReplacesCountsByTheModeOfTheNamespaceOrTheMeshAndInItsNamespaceOnly) {
  c.policy("shop/wide", labelled({{"app", "db"}})).ingress = {{}};
  auto& refined = c.policy("shop/refined", labelled({{"app", "db"}}));
  refined.replaces = {"wide"};
  EXPECT_TRUE(c.ingress("shop/db", "shop/web", 80).pending.allowed);
  c.view.namespaces.at("shop").mode = EnforcementMode::audit;
  EXPECT_FALSE(c.ingress("shop/db", "shop/web", 80).pending.allowed);
  c.view.namespaces.at("shop").mode.reset();
  c.settings.audit = true;
  EXPECT_FALSE(c.ingress("shop/db", "shop/web", 80).pending.allowed);
  EXPECT_TRUE(c.ingress("shop/db", "shop/web", 80).allowed());
  refined.replaces.clear();
  c.ns("other");
  c.policy("other/refined").replaces = {"wide"};
  EXPECT_TRUE(c.ingress("shop/db", "shop/web", 80).pending.allowed);
}

TEST_F(DecideAudit, TheFirstRuleInOrderIsTheOneNamed) {
  c.policy("shop/b").ingress = {{}};
  c.policy("shop/a").ingress = {{.ports = {on(81)}, .peers = {}},
                                {.ports = {on(80)}, .peers = {block("192.0.2.0/24"), pods({}), block("10.0.0.0/8")}}};
  EXPECT_EQ(*c.ingress("shop/db", "shop/web", 80).enforced.origin, (RuleOrigin{.ns = "shop", .policy = "a", .rule = 1, .peer = 1}));
  EXPECT_EQ(*c.ingress("shop/db", "10.3.0.1", 80).enforced.origin, (RuleOrigin{.ns = "shop", .policy = "a", .rule = 1, .peer = 2}));
  EXPECT_EQ(*c.ingress("shop/db", "shop/web", 82).enforced.origin, (RuleOrigin{.ns = "shop", .policy = "b", .rule = 0, .peer = -1}));
}

TEST_F(DecideAudit, PlaintextInStrictModeMatchesNoPeerSet) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {
      {.ports = {on(80)}, .peers = {pods({})}}, {.ports = {on(81)}, .peers = {block("10.0.0.0/8")}}, {.ports = {on(82)}, .peers = {}}};
  const auto snapshot = c.compile("shop/db");
  const Peer plaintext{.workload = snapshot->workload_at(ip("10.0.0.1")), .address = ip("10.0.0.1"), .matches_peer_sets = false};
  const auto allowed = [&](std::uint16_t port) {
    return decide(snapshot.get(), PolicyDirection::ingress, plaintext, Port{port}).allowed();
  };
  EXPECT_FALSE(allowed(80));
  EXPECT_TRUE(allowed(81));
  EXPECT_TRUE(allowed(82));
}

TEST_F(DecideAudit, ARecordOfAnEarlierSnapshotIsTodaysPodOnlyIfTheUidIsTheSame) {
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {{.ports = {}, .peers = {pods(labelled({{"app", "web"}}))}}};
  const auto before = c.compile("shop/db");
  const Peer peer{.workload = before->topology().find("shop", "web"), .address = ip("10.0.0.1")};
  const auto allowed = [&] { return decide(c.compile("shop/db").get(), PolicyDirection::ingress, peer, Port{80}).allowed(); };
  EXPECT_TRUE(allowed());
  c.view.pods.at(key("shop/web")).labels["app"] = "other";
  EXPECT_FALSE(allowed());
  c.view.pods.at(key("shop/web")).labels["app"] = "web";
  EXPECT_TRUE(allowed());
  c.view.pods.at(key("shop/web")).workload.uid = "another";
  EXPECT_FALSE(allowed());
}

}  // namespace
}  // namespace postern::test
