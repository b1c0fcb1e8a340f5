#include "authz/compiler.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "authz/topology.hpp"
#include "tests/unit/authz/cluster_builder.hpp"
#include "tests/unit/authz/random_cluster.hpp"

namespace postern::test {
namespace {

std::vector<std::string> members_of(const PolicySnapshot& snapshot, const PeerSet& set) {
  std::vector<std::string> names;
  for (const auto member : set.members) {
    const Workload& workload = snapshot.topology().workloads()[member];
    names.push_back(workload.ns + "/" + workload.name);
  }
  return names;
}

class CompilerTest : public testing::Test {
 protected:
  CompilerTest() {
    c.ns("shop", {{"team", "a"}});
    c.ns("other", {{"team", "b"}});
    c.pod("shop/web", "10.0.0.1", {{"app", "web"}});
    c.pod("shop/db", "10.0.0.3", {{"app", "db"}});
    c.pod("other/web", "10.0.1.1", {{"app", "web"}});
  }
  ClusterBuilder c;
};

TEST_F(CompilerTest, AnUnknownOrEndedPodIsAnErrorThatNamesIt) {
  EXPECT_EQ(compile(c.view, key("shop/nobody"), c.settings, 1).error().message, "there is no pod shop/nobody");
  c.view.pods.at(key("shop/web")).phase = PodPhase::failed;
  EXPECT_EQ(compile(c.view, key("shop/web"), c.settings, 1).error().message, "the pod shop/web has ended (phase Failed)");
}

TEST_F(CompilerTest, PoliciesWithTheSameSelectorsShareOnePeerSet) {
  c.policy("shop/a").ingress = {{.ports = {on(80)}, .peers = {pods(labelled({{"app", "web"}}))}}};
  c.policy("shop/b").ingress = {{.ports = {on(81)}, .peers = {pods(expression("app", SelectorOperator::in, {"web"}))}}};
  c.policy("shop/c").ingress = {
      {.ports = {}, .peers = {both(labelled({{std::string(namespace_name_label), "shop"}}), labelled({{"app", "web"}}))}}};
  Compiler compiler(c.view, c.settings);
  const auto db = compiler.compile(key("shop/db"), 1).value();
  const auto web = compiler.compile(key("shop/web"), 1).value();
  ASSERT_EQ(db->allow_list().peer_sets.size(), 1U);
  EXPECT_EQ(members_of(*db, *db->allow_list().peer_sets[0]), (std::vector<std::string>{"shop/web"}));
  EXPECT_EQ(db->allow_list().peer_sets[0], web->allow_list().peer_sets[0]);  // the same object
}

TEST_F(CompilerTest, PeerSetsHoldThePodsTheirSelectorsMatch) {
  c.policy("shop/a").ingress = {{.ports = {}, .peers = {namespaces({}), both(labelled({{"team", "b"}}), {})}}};
  const auto snapshot = c.compile("shop/db");
  const auto& sets = snapshot->allow_list().peer_sets;
  ASSERT_EQ(sets.size(), 2U);
  EXPECT_EQ(members_of(*snapshot, *sets[0]), (std::vector<std::string>{"other/web", "shop/db", "shop/web"}));
  EXPECT_EQ(members_of(*snapshot, *sets[1]), (std::vector<std::string>{"other/web"}));
  EXPECT_EQ(text_of(*sets[0]), "all pods in all namespaces");
  EXPECT_EQ(text_of(*sets[1]), "all pods in namespaces team=b");
}

TEST_F(CompilerTest, IsolatingPoliciesAreListedByNameForMessages) {
  c.policy("shop/b");
  c.policy("shop/a", labelled({{"app", "db"}})).mode = EnforcementMode::audit;
  c.egress_policy("shop/c");
  c.policy("shop/d", labelled({{"app", "web"}}));
  const auto snapshot = c.compile("shop/db");
  EXPECT_EQ(snapshot->allow_list().ingress.isolating,
            (std::vector<IsolatingPolicy>{{.ns = "shop", .policy = "a", .audit = true}, {.ns = "shop", .policy = "b", .audit = false}}));
  EXPECT_EQ(snapshot->allow_list().egress.isolating, (std::vector<IsolatingPolicy>{{.ns = "shop", .policy = "c", .audit = false}}));
}

TEST_F(CompilerTest, MtlsModeIsThePodsThenTheNamespacesThenTheMeshes) {
  c.settings.mtls = MtlsMode::permissive;
  c.view.namespaces.at("other").mtls = MtlsMode::spiffe;
  c.view.pods.at(key("shop/web")).mtls = MtlsMode::strict;
  const auto snapshot = c.compile("shop/db");
  EXPECT_EQ(snapshot->self().mtls, MtlsMode::permissive);
  EXPECT_EQ(snapshot->workload_at(ip("10.0.1.1"))->mtls, MtlsMode::spiffe);
  EXPECT_EQ(snapshot->workload_at(ip("10.0.0.1"))->mtls, MtlsMode::strict);
}

TEST_F(CompilerTest, NodeAddressesComeFromSettingsPodAndNode) {
  c.settings.node_addresses = {ip("192.168.0.1")};
  c.view.pods.at(key("shop/db")).host_addresses = {ip("192.168.0.2")};
  c.view.nodes["node-1"] = {.name = "node-1", .addresses = {ip("192.168.0.3")}, .pod_cidrs = {}};
  c.view.nodes["node-2"] = {.name = "node-2", .addresses = {ip("192.168.0.4")}, .pod_cidrs = {}};
  const auto snapshot = c.compile("shop/db");
  for (const auto* own : {"192.168.0.1", "192.168.0.2", "192.168.0.3"}) EXPECT_TRUE(snapshot->is_own_node(ip(own))) << own;
  EXPECT_FALSE(snapshot->is_own_node(ip("192.168.0.4")));
}

TEST_F(CompilerTest, WhatHoldsForAWorkloadIsKeptWithIt) {
  const auto made = std::chrono::system_clock::time_point(std::chrono::seconds(1000));
  const auto snapshot = compile(c.view, key("shop/db"), c.settings, 42, made).value();
  EXPECT_EQ(snapshot->generation(), 42U);
  EXPECT_EQ(snapshot->made_at(), made);
  EXPECT_EQ(snapshot->self().name, "db");
  EXPECT_EQ(snapshot->settings().trust_domain.text(), "example.org");
}

// The same objects, arriving in another order.
ClusterView shuffled(const ClusterView& view, std::mt19937& random) {
  const auto shuffle = [&random](const auto& map) {
    using Map = std::remove_cvref_t<decltype(map)>;
    std::vector<std::pair<typename Map::key_type, typename Map::mapped_type>> entries(map.begin(), map.end());
    std::shuffle(entries.begin(), entries.end(), random);
    Map result;
    for (auto& [name, object] : entries) result.emplace(std::move(name), std::move(object));
    return result;
  };
  return {.namespaces = shuffle(view.namespaces),
          .pods = shuffle(view.pods),
          .policies = shuffle(view.policies),
          .services = shuffle(view.services),
          .endpoint_slices = shuffle(view.endpoint_slices),
          .nodes = shuffle(view.nodes)};
}

TEST(CompilerOrder, TheOrderOfObjectsAndOfCompilesDoesNotMatter) {
  std::mt19937 order(7);
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    RandomCluster random(seed);
    const ClusterView other = shuffled(random.c.view, order);
    Compiler one(random.c.view, random.c.settings);
    Compiler two(other, random.c.settings);
    std::vector<ObjectKey> names;
    for (const auto& [id, pod] : random.c.view.pods) {
      if (!pod.ended()) names.push_back(id);
    }
    std::map<ObjectKey, std::shared_ptr<const PolicySnapshot>> first;
    for (const auto& id : names) first[id] = one.compile(id, 1).value();
    std::shuffle(names.begin(), names.end(), order);
    for (const auto& id : names) {
      const auto second = two.compile(id, 1).value();
      EXPECT_EQ(first[id]->allow_list(), second->allow_list()) << "seed " << seed << " " << id.text();
      EXPECT_EQ(first[id]->settings(), second->settings());
      EXPECT_EQ(first[id]->self(), second->self());
    }
  }
}

TEST(CompilerOrder, TheOrderInsideAPolicyChangesNoVerdict) {
  std::mt19937 order(8);
  for (std::uint32_t seed = 0; seed < 100; ++seed) {
    RandomCluster random(seed);
    ClusterView other = random.c.view;
    for (auto& [id, policy] : other.policies) {
      for (auto* rules : {&policy.ingress, &policy.egress}) {
        std::shuffle(rules->begin(), rules->end(), order);
        for (PolicyRule& rule : *rules) {
          std::shuffle(rule.ports.begin(), rule.ports.end(), order);
          std::shuffle(rule.peers.begin(), rule.peers.end(), order);
        }
      }
    }
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const auto one = random.c.compile(id.text());
      const auto two = compile(other, id, random.c.settings, 1).value();
      for (int i = 0; i < 20; ++i) {
        const auto direction = i % 2 == 0 ? PolicyDirection::ingress : PolicyDirection::egress;
        const Peer peer = random.peer(*one);
        const Port port = random.port();
        EXPECT_EQ(decide(one.get(), direction, peer, port).allowed(), decide(two.get(), direction, peer, port).allowed());
      }
    }
  }
}

}  // namespace
}  // namespace postern::test
