// Authenticated SPIFFE IDs that are no pod's: of another trust domain, or of a path that no pod has. Refused unless named.
#include <gtest/gtest.h>

#include "authz/explain.hpp"
#include "authz/resource.hpp"
#include "base/document.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

const SpiffeId billing = SpiffeId::parse("spiffe://partner.example/billing").value();
const SpiffeId other = SpiffeId::parse("spiffe://partner.example/other").value();
const SpiffeId stranger = SpiffeId::parse("spiffe://stranger.example/billing").value();
const SpiffeId own = SpiffeId::parse("spiffe://example.org/legacy/mainframe").value();

// shop/api is what they call, from 203.0.113.7.
class Outsider : public testing::Test {
 protected:
  Outsider() {
    c.ns("shop");
    c.pod("shop/api", "10.0.0.1", {{"app", "api"}}).workload.named_ports = {{"https", Protocol::tcp, Port{8443}}};
    c.pod("shop/web", "10.0.0.2", {{"app", "web"}});
  }
  Verdict ask(const SpiffeId& id, std::uint16_t port = 8443, PolicyDirection direction = PolicyDirection::ingress) {
    snapshot = c.compile("shop/api");
    const Peer peer{.workload = nullptr, .address = ip("203.0.113.7"), .matches_peer_sets = false, .outsider = &id};
    const Verdict verdict = decide(snapshot.get(), direction, peer, Port{port});
    const Verdict explained = explain(*snapshot, direction, peer, Port{port}).verdict;
    for (const auto& [a, b] : {std::pair(&verdict.enforced, &explained.enforced), std::pair(&verdict.pending, &explained.pending)}) {
      EXPECT_EQ(a->allowed, b->allowed);
      EXPECT_EQ(name_of(a->basis), name_of(b->basis));
      EXPECT_EQ(a->origin, b->origin);
    }
    return verdict;
  }
  std::string said(const SpiffeId& id, std::uint16_t port = 8443) {
    const Verdict verdict = ask(id, port);
    const std::string word = verdict.allowed() ? "allow " : "deny ";
    if (verdict.enforced.origin != nullptr) return word + text_of(*verdict.enforced.origin, PolicyDirection::ingress);
    return word + std::string(name_of(verdict.enforced.basis));
  }
  void allow_domain() { c.view.namespaces.at("shop").allow_trust_domains = {"partner.example"}; }
  NetworkPolicy& for_api(PolicyRule rule) {
    const auto known = c.view.policies.find(key("shop/api"));
    NetworkPolicy& policy = known != c.view.policies.end() ? known->second : c.policy("shop/api", labelled({{"app", "api"}}));
    policy.ingress.push_back(std::move(rule));
    return policy;
  }

  ClusterBuilder c;
  std::shared_ptr<const PolicySnapshot> snapshot;
};

TEST_F(Outsider, IsRefusedByAPodThatIsOpenToEverybody) {
  EXPECT_EQ(said(billing), "deny outsider");
  EXPECT_EQ(said(own), "deny outsider");
}

TEST_F(Outsider, IsRefusedByARuleForAnySource) {
  for_api({});
  EXPECT_EQ(said(billing), "deny outsider");
}

TEST_F(Outsider, IsRefusedByARuleForItsAddress) {
  for_api({.ports = {}, .peers = {block("203.0.113.0/24")}});
  EXPECT_EQ(said(billing), "deny outsider");
}

TEST_F(Outsider, IsRefusedByWhatSelectsAllPodsInAllNamespaces) {
  allow_domain();
  for_api({.ports = {}, .peers = {both({}, {})}});
  EXPECT_EQ(said(billing), "deny no_rule");
}

TEST_F(Outsider, OfAnAllowedDomainMeetsAPodThatIsOpen) {
  allow_domain();
  EXPECT_EQ(said(billing), "allow not_isolated");
  EXPECT_EQ(said(other), "allow not_isolated");
  EXPECT_EQ(said(stranger), "deny outsider");
}

TEST_F(Outsider, OfAnAllowedDomainMatchesAnySourceAndItsAddress) {
  allow_domain();
  for_api({.ports = {on(8443)}, .peers = {}});
  for_api({.ports = {on(9000)}, .peers = {block("203.0.113.0/24")}});
  for_api({.ports = {on(9001)}, .peers = {block("198.51.100.0/24")}});
  EXPECT_EQ(said(billing), "allow shop/api ingress[0]");
  EXPECT_EQ(said(billing, 9000), "allow shop/api ingress[1].from[0]");
  EXPECT_EQ(said(billing, 9001), "deny no_rule");
  EXPECT_EQ(said(stranger), "deny outsider");
}

TEST_F(Outsider, TheMeshsOwnDomainCannotBeAllowedAsAnother) {
  c.view.namespaces.at("shop").allow_trust_domains = {"example.org", "partner.example"};
  EXPECT_EQ(said(own), "deny outsider");
  EXPECT_EQ(said(billing), "allow not_isolated");
}

TEST_F(Outsider, ThatAPolicyListsIsAllowedAtItsPortsOnly) {
  NetworkPolicy& policy = for_api({.ports = {on(80)}, .peers = {pods(labelled({{"app", "web"}}))}});
  policy.ingress.push_back({.ports = {named("https")}, .peers = {pods(labelled({{"app", "nobody"}}))}});
  policy.allow_spiffe_ids = {own.text(), billing.text()};
  EXPECT_EQ(said(billing, 80), "allow shop/api ingress[0] by postern.dev/allow-spiffe-ids");
  EXPECT_EQ(said(billing, 8443), "allow shop/api ingress[1] by postern.dev/allow-spiffe-ids");
  EXPECT_EQ(said(own, 8443), "allow shop/api ingress[1] by postern.dev/allow-spiffe-ids");
  EXPECT_EQ(said(billing, 9000), "deny outsider");
  EXPECT_EQ(said(other, 80), "deny outsider");
}

TEST_F(Outsider, ThatIsListedIsNoOtherPeer) {
  NetworkPolicy& policy = for_api({.ports = {on(8443)}, .peers = {pods(labelled({{"app", "web"}}))}});
  policy.allow_spiffe_ids = {billing.text()};
  EXPECT_TRUE(c.ingress("shop/api", "shop/web", 8443).allowed());
  c.pod("shop/else", "10.0.0.3", {{"app", "else"}});
  EXPECT_FALSE(c.ingress("shop/api", "shop/else", 8443).allowed());
  snapshot = c.compile("shop/api");
  EXPECT_FALSE(decide(snapshot.get(), PolicyDirection::ingress, {.workload = nullptr, .address = ip("203.0.113.7")}, Port{8443}).allowed());
}

TEST_F(Outsider, AnAuditPolicyDoesNotAllowIt) {
  NetworkPolicy& policy = for_api({.ports = {on(8443)}, .peers = {}});
  policy.allow_spiffe_ids = {billing.text()};
  policy.mode = EnforcementMode::audit;
  const Verdict verdict = ask(billing);
  EXPECT_EQ(verdict.enforced.basis, Basis::outsider);
  EXPECT_TRUE(verdict.pending.allowed);
  EXPECT_TRUE(verdict.differs());
}

TEST_F(Outsider, IsNotTheNodeWhereverItComesFrom) {
  c.settings.node_traffic = NodeTraffic::all;
  c.settings.node_addresses = {ip("203.0.113.7")};
  allow_domain();
  c.policy("shop/deny");
  EXPECT_EQ(said(billing), "deny no_rule");
}

TEST_F(Outsider, IsNoDestination) {
  allow_domain();
  EXPECT_FALSE(ask(billing, 8443, PolicyDirection::egress).allowed());
}

TEST_F(Outsider, TravelsWithTheAllowList) {
  allow_domain();
  for_api({.ports = {on(8443)}, .peers = {block("203.0.113.0/24")}}).allow_spiffe_ids = {billing.text(), other.text()};
  AllowListRecord record{.list = rules_of(c.view, c.settings, c.view.pods.at(key("shop/api"))).list, .peer_sets = {}};
  const std::string body = encode(record);
  SnapshotParts parts;
  const auto read = decode_into(parts, "allow-list", parse_json(body, "body")->root);
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(parts.allow_list->list, record.list) << body;
  for (const auto& [from, to] :
       {std::pair("\"spiffeId\":\"spiffe:", "\"spiffeId\":\"https:"), std::pair("[\"partner.example\"]", "[\"Partner\"]"),
        std::pair("\"cidr\"", "\"spiffeId\":\"spiffe://a/b\",\"cidr\""), std::pair("[\"partner.example\"]", "[\"b\",\"a\"]")}) {
    std::string bad = body;
    ASSERT_NE(bad.find(from), std::string::npos) << from << body;
    bad.replace(bad.find(from), std::string_view(from).size(), to);
    SnapshotParts none;
    EXPECT_FALSE(decode_into(none, "allow-list", parse_json(bad, "body")->root)) << bad;
  }
}

}  // namespace
}  // namespace postern::test
