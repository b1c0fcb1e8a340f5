#include "authz/explain.hpp"

#include <gtest/gtest.h>

#include "tests/unit/authz/cluster_builder.hpp"
#include "tests/unit/authz/random_cluster.hpp"

namespace postern::test {
namespace {

bool same(const Decision& a, const Decision& b) { return a.allowed == b.allowed && a.basis == b.basis && a.origin == b.origin; }

std::string text_of(const Decision& decision) {
  return std::string(decision.allowed ? "allow " : "deny ") + std::string(name_of(decision.basis));
}

TEST(Explain, NeverDisagreesWithDecide) {
  std::size_t rules_seen = 0;
  for (std::uint32_t seed = 0; seed < 400; ++seed) {
    RandomCluster random(seed);
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const auto snapshot = random.c.compile(id.text());
      for (int i = 0; i < 30; ++i) {
        const auto direction = i % 2 == 0 ? PolicyDirection::ingress : PolicyDirection::egress;
        const Peer peer = random.peer(*snapshot);
        const Port port = random.port();
        const Protocol protocol = random.protocol();
        const Verdict decided = decide(snapshot.get(), direction, peer, port, protocol);
        const Explanation explained = explain(*snapshot, direction, peer, port, protocol);
        ASSERT_TRUE(same(decided.enforced, explained.verdict.enforced) && same(decided.pending, explained.verdict.pending))
            << "seed " << seed << " " << id.text() << " " << peer.address.text() << " " << port.number << "\ndecided "
            << text_of(decided.enforced) << " / " << text_of(decided.pending) << "\n"
            << text_of(explained);
        rules_seen += decided.enforced.basis == Basis::rule ? 1 : 0;
      }
    }
  }
  EXPECT_GT(rules_seen, 1000U);  // the clusters are not all open or all closed
}

TEST(Explain, SaysWhyInWords) {
  ClusterBuilder c;
  c.ns("shop");
  c.pod("shop/web", "10.0.0.1", {{"app", "web"}});
  c.pod("shop/db", "10.0.0.3", {{"app", "db"}}).workload.named_ports = {{"sql", Protocol::tcp, Port{5432}}};
  c.policy("shop/deny");
  c.policy("shop/db", labelled({{"app", "db"}})).ingress = {
      {.ports = {on(80)}, .peers = {}},
      {.ports = {named("sql"), range(9000, 9010)}, .peers = {block("10.9.0.0/16", {"10.9.1.0/24"}), pods(labelled({{"app", "web"}}))}}};
  auto& audit = c.policy("shop/audit", labelled({{"app", "db"}}));
  audit.mode = EnforcementMode::audit;
  audit.ingress = {{.ports = {every(Protocol::udp)}, .peers = {}}};
  const auto snapshot = c.compile("shop/db");
  EXPECT_EQ(text_of(explain(*snapshot, PolicyDirection::ingress, c.peer_of(*snapshot, "shop/web"), Port{5432})),
            "ingress: allow: shop/db ingress[1].from[1]\n"
            "  isolated by shop/audit (audit)\n"
            "  isolated by shop/db\n"
            "  isolated by shop/deny\n"
            "  shop/audit ingress[0] (audit): anybody: yes; UDP every port: no\n"
            "  shop/db ingress[0]: anybody: yes; TCP 80: no\n"
            "  shop/db ingress[1].from[0]: 10.9.0.0/16 except 10.9.1.0/24: no; TCP sql (5432), TCP 9000-9010: yes\n"
            "  shop/db ingress[1].from[1]: pods app=web in namespace shop: yes; TCP sql (5432), TCP "
            "9000-9010: yes  <- matches");
  EXPECT_EQ(text_of(explain(*snapshot, PolicyDirection::egress, c.peer_of(*snapshot, "shop/web"), Port{80})),
            "egress: allow: no policy isolates the pod in this direction");
  const Explanation udp = explain(*snapshot, PolicyDirection::ingress, c.peer_of(*snapshot, "shop/web"), Port{53}, Protocol::udp);
  EXPECT_TRUE(udp.verdict.differs());
  EXPECT_TRUE(
      text_of(udp).starts_with("ingress: deny: the pod is isolated, and no rule matches\n"
                               "  with the policies that are in audit: allow: shop/audit ingress[0]\n"))
      << text_of(udp);
}

TEST(Explain, MarksWhatIsReplaced) {
  ClusterBuilder c;
  c.ns("shop");
  c.pod("shop/web", "10.0.0.1");
  c.policy("shop/wide").ingress = {{}};
  auto& refined = c.policy("shop/refined");
  refined.mode = EnforcementMode::audit;
  refined.replaces = {"wide"};
  const auto snapshot = c.compile("shop/web");
  EXPECT_EQ(text_of(explain(*snapshot, PolicyDirection::ingress, c.peer_of(*snapshot, "10.9.0.1"), Port{80})),
            "ingress: allow: shop/wide ingress[0]\n"
            "  with the policies that are in audit: deny: the pod is isolated, and no rule matches\n"
            "  isolated by shop/refined (audit)\n"
            "  isolated by shop/wide (replaced in audit)\n"
            "  shop/wide ingress[0] (replaced in audit): anybody: yes; every port: yes  <- matches");
}

}  // namespace
}  // namespace postern::test
