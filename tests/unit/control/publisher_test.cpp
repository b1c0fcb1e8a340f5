#include "control/publisher.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/cluster_feed.hpp"

namespace postern::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsSupersetOf;
using testing::Not;
using testing::SizeIs;

std::vector<std::string> names_of(const Receiver& receiver) {
  std::vector<std::string> names;
  for (const auto& [name, hash] : receiver.held()) names.push_back(name);
  return names;
}

std::string only_set_of(const Receiver& receiver) {
  std::string found;
  for (const auto& [name, hash] : receiver.held()) {
    if (name.starts_with("peer-set/")) found += name;
  }
  return found;
}

// Two namespaces; api admits web, and web may reach api only.
struct PublisherTest : testing::Test {
  PublisherTest() {
    c.ns("shop", {{"team", "a"}});
    c.ns("other", {{"team", "b"}});
    c.pod("shop/web-1", "10.0.0.1", {{"app", "web"}});
    c.pod("shop/web-2", "10.0.0.2", {{"app", "web"}});
    c.pod("shop/api", "10.0.0.3", {{"app", "api"}});
    c.pod("shop/db", "10.0.0.4", {{"app", "db"}});
    c.pod("other/x", "10.0.0.5", {{"app", "web"}});
    c.policy("shop/api", labelled({{"app", "api"}})).ingress = {{.ports = {on(80)}, .peers = {pods(labelled({{"app", "web"}}))}}};
    c.egress_policy("shop/web", labelled({{"app", "web"}})).egress = {{.ports = {}, .peers = {pods(labelled({{"app", "api"}}))}}};
    c.view.nodes["node-1"] = {.name = "node-1", .addresses = {ip("192.168.0.1")}, .pod_cidrs = {}};
    feed.list(c);
    publisher.flush();
  }

  void flush() { publisher.flush(); }
  // Applies the builder's version of it.
  void apply_pod(const char* name) { feed.apply(c.view.pods.at(key(name))); }

  ClusterBuilder c;
  ClusterStore store;
  ClusterFeed feed{store};
  Publisher publisher{store};
};

TEST_F(PublisherTest, NothingIsPublishedBeforeEveryKindWasListed) {
  ClusterStore young;
  ClusterFeed to_it(young);
  Publisher early(young);
  to_it.list_kind(c.view.pods);
  EXPECT_TRUE(early.flush().empty());
  EXPECT_EQ(early.subscribe(key("shop/api"), "uid-api", {}), nullptr);
  to_it.list(c);
  EXPECT_THAT(early.flush().pods, SizeIs(5));
  EXPECT_NE(early.subscribe(key("shop/api"), "uid-api", {}), nullptr);
}

TEST_F(PublisherTest, OnlyThePodItselfSubscribes) {
  EXPECT_EQ(publisher.subscribe(key("shop/api"), "uid-of-yesterday", {}), nullptr);
  EXPECT_EQ(publisher.subscribe(key("shop/none"), "uid-none", {}), nullptr);
  EXPECT_EQ(publisher.stats().subscriptions, 0U);
}

TEST_F(PublisherTest, AScopeHoldsTheListItsSetsAndTheirMembers) {
  const Receiver api(publisher, key("shop/api"), "uid-api");
  const std::string set = only_set_of(api);
  EXPECT_THAT(names_of(api), ElementsAre("allow-list", set, "pod/shop/api", "pod/shop/web-1", "pod/shop/web-2", "probes", "settings"));
  EXPECT_THAT(api.body(set), HasSubstr("web-2"));
  EXPECT_THAT(api.body("settings"), HasSubstr("192.168.0.1"));
  EXPECT_THAT(api.body("allow-list"), HasSubstr(set.substr(set.find('/') + 1)));
}

TEST_F(PublisherTest, ScopeDoesNotGrowWithTheCluster) {
  const Receiver before(publisher, key("shop/api"), "uid-api");
  for (int i = 0; i < 50; ++i) {
    const std::string n = std::to_string(i);
    c.ns("ns-" + n);
    feed.apply(c.view.namespaces.at("ns-" + n));
    c.pod("ns-" + n + "/p", "10.1.0." + std::to_string(i + 1), {{"app", "web"}});
    apply_pod(("ns-" + n + "/p").c_str());
  }
  flush();
  const Receiver after(publisher, key("shop/api"), "uid-api");
  EXPECT_EQ(after.held(), before.held());
}

TEST_F(PublisherTest, ANewMemberIsTheSetAndItsRecordAndNothingElse) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  Receiver db(publisher, key("shop/db"), "uid-db");
  c.pod("shop/web-3", "10.0.0.9", {{"app", "web"}});
  apply_pod("shop/web-3");
  flush();
  ASSERT_TRUE(api.told());
  EXPECT_EQ(api.take(), 2U);
  EXPECT_TRUE(api.has("pod/shop/web-3"));
  EXPECT_FALSE(db.told());
}

TEST_F(PublisherTest, WhatWasDeletedMayBeTakenUntilTheNextFlush) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  const Pod& pod = c.pod("shop/web-3", "10.0.0.9", {{"app", "web"}});
  feed.apply(pod);
  flush();
  feed.erase(pod);
  EXPECT_EQ(api.take(), 2U);
  EXPECT_TRUE(api.has("pod/shop/web-3"));
  flush();
  EXPECT_EQ(api.take(), 2U);
  EXPECT_FALSE(api.has("pod/shop/web-3"));
}

TEST_F(PublisherTest, AnotherLabelTakesTheMemberAndItsRecordAway) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  c.view.pods.at(key("shop/web-2")).labels["app"] = "canary";
  apply_pod("shop/web-2");
  flush();
  ASSERT_TRUE(api.told());
  EXPECT_EQ(api.take(), 2U);
  EXPECT_FALSE(api.has("pod/shop/web-2"));
  EXPECT_THAT(api.body(only_set_of(api)), Not(HasSubstr("web-2")));
}

TEST_F(PublisherTest, WhatNoSidecarNeedsTellsNobody) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  c.view.pods.at(key("shop/web-1")).labels["version"] = "2";
  apply_pod("shop/web-1");
  c.view.pods.at(key("shop/web-1")).ready = false;
  apply_pod("shop/web-1");
  flush();
  EXPECT_FALSE(api.told());
  flush();
  EXPECT_FALSE(api.told());
}

TEST_F(PublisherTest, ACompletedPodFreesItsAddressATerminatingOneKeepsIt) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  c.view.pods.at(key("shop/web-1")).phase = PodPhase::succeeded;
  apply_pod("shop/web-1");
  c.view.pods.at(key("shop/web-2")).terminating = true;
  apply_pod("shop/web-2");
  c.pod("shop/heir", "10.0.0.1", {{"app", "heir"}});
  apply_pod("shop/heir");
  flush();
  api.take();
  EXPECT_FALSE(api.has("pod/shop/web-1"));
  EXPECT_THAT(api.body("pod/shop/web-2"), HasSubstr("10.0.0.2"));
  ASSERT_TRUE(api.subscription().look_up(ip("10.0.0.1")));
  api.take();
  EXPECT_TRUE(api.has("pod/shop/heir"));
  EXPECT_EQ(publisher.subscribe(key("shop/web-1"), "uid-web-1", {}), nullptr);
}

TEST_F(PublisherTest, APodMadeAnewUnderItsNameEndsTheOldSubscription) {
  Receiver old(publisher, key("shop/api"), "uid-api");
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  Pod& pod = c.view.pods.at(key("shop/api"));
  feed.erase(pod);
  pod.workload.uid = "uid-second";
  feed.apply(pod);
  flush();
  EXPECT_TRUE(old.gone());
  EXPECT_EQ(old.take(), 0U);
  EXPECT_EQ(old.take_all(), 0U);
  EXPECT_FALSE(web.gone());
  EXPECT_EQ(web.take(), 1U) << "the record of the member has another UID";
  EXPECT_THAT(web.body("pod/shop/api"), HasSubstr("uid-second"));
  EXPECT_EQ(publisher.subscribe(key("shop/api"), "uid-api", {}), nullptr);
  const Receiver second(publisher, key("shop/api"), "uid-second");
  EXPECT_TRUE(second.subscribed());
}

TEST_F(PublisherTest, ADeletedPodEndsItsSubscriptionOnce) {
  int gone = 0;
  const auto subscription = publisher.subscribe(key("shop/api"), "uid-api", [&](bool is_gone) { gone += is_gone ? 1 : 0; });
  feed.erase(c.view.pods.at(key("shop/api")));
  flush();
  flush();
  EXPECT_EQ(gone, 1);
  EXPECT_EQ(publisher.stats().allow_lists, 0U);
  EXPECT_EQ(publisher.stats().peer_sets, 0U);
}

TEST_F(PublisherTest, APolicyEditRecompilesOnlyTheListsOfPodsItSelects) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  const auto before = publisher.stats().recompiled;
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  policy.ingress[0].ports = {on(81)};
  feed.apply(policy);
  flush();
  EXPECT_EQ(publisher.stats().recompiled, before + 1);
  EXPECT_FALSE(web.told());
  ASSERT_TRUE(api.told());
  EXPECT_EQ(api.take(), 1U);
  EXPECT_THAT(api.body("allow-list"), HasSubstr("81"));

  policy.pod_selector = labelled({{"app", "db"}});
  feed.apply(policy);
  flush();
  api.take();
  EXPECT_EQ(only_set_of(api), "");
  EXPECT_FALSE(api.has("pod/shop/web-1"));
}

TEST_F(PublisherTest, AnEditThatCompilesToTheSameTellsNobody) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  ++policy.generation;
  policy.ingress[0].peers = {pods(expression("app", SelectorOperator::in, {"web"}))};
  feed.apply(policy);
  flush();
  EXPECT_FALSE(api.told());
}

TEST_F(PublisherTest, APolicyOfAnotherNamespaceConcernsNobodyHere) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  feed.apply(c.policy("other/api", labelled({{"app", "api"}})));
  flush();
  EXPECT_FALSE(api.told());
}

TEST_F(PublisherTest, PodsThatTheSamePoliciesSelectShareAList) {
  const Receiver one(publisher, key("shop/web-1"), "uid-web-1");
  const Receiver two(publisher, key("shop/web-2"), "uid-web-2");
  EXPECT_EQ(publisher.stats().allow_lists, 1U);
  EXPECT_EQ(one.resources().at("allow-list"), two.resources().at("allow-list"));
}

TEST_F(PublisherTest, AnAuditPolicyThatReplacesAnotherChangesTheOthersRules) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  NetworkPolicy& trial = c.policy("shop/trial", labelled({{"app", "nobody"}}));
  trial.mode = EnforcementMode::audit;
  trial.replaces = {"api"};
  feed.apply(trial);
  flush();
  ASSERT_TRUE(api.told());
  EXPECT_EQ(api.take(), 1U);
  feed.erase(trial);
  flush();
  EXPECT_EQ(api.take(), 1U);
}

TEST_F(PublisherTest, ANamespaceRelabelMovesItsPodsInAndOut) {
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  policy.ingress[0].peers = {both(labelled({{"team", "b"}}), labelled({{"app", "web"}}))};
  feed.apply(policy);
  flush();
  Receiver api(publisher, key("shop/api"), "uid-api");
  EXPECT_TRUE(api.has("pod/other/x"));
  EXPECT_FALSE(api.has("pod/shop/web-1"));
  c.view.namespaces.at("other").labels["team"] = "c";
  c.view.namespaces.at("shop").labels["team"] = "b";
  feed.apply(c.view.namespaces.at("other"));
  feed.apply(c.view.namespaces.at("shop"));
  flush();
  api.take();
  EXPECT_FALSE(api.has("pod/other/x"));
  EXPECT_TRUE(api.has("pod/shop/web-1"));
}

TEST_F(PublisherTest, WholeNamespacesTravelByNameWithoutMembers) {
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  policy.ingress[0].peers = {namespaces(labelled({{"team", "b"}}))};
  feed.apply(policy);
  flush();
  Receiver api(publisher, key("shop/api"), "uid-api");
  EXPECT_THAT(names_of(api), SizeIs(5));
  EXPECT_FALSE(api.has("pod/other/x"));
  EXPECT_THAT(api.body(only_set_of(api)), HasSubstr("other"));
  feed.apply(c.ns("third", {{"team", "b"}}));
  flush();
  EXPECT_EQ(api.take(), 1U);
  EXPECT_THAT(api.body(only_set_of(api)), HasSubstr("third"));
}

TEST_F(PublisherTest, EveryNamespaceIsSaidWithoutNamingAny) {
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  policy.ingress[0].peers = {namespaces({})};
  feed.apply(policy);
  flush();
  Receiver api(publisher, key("shop/api"), "uid-api");
  EXPECT_THAT(api.body(only_set_of(api)), Not(HasSubstr("other")));
  feed.apply(c.ns("third"));
  flush();
  EXPECT_FALSE(api.told());
}

TEST_F(PublisherTest, SettingsChangeEverySubscription) {
  Receiver db(publisher, key("shop/db"), "uid-db");
  c.settings.default_policy = DefaultPolicy::deny;
  c.settings.mtls = MtlsMode::permissive;
  feed.apply(MeshConfig{.settings = c.settings, .epoch = {}});
  flush();
  ASSERT_TRUE(db.told());
  EXPECT_EQ(db.take(), 3U) << "the settings, the list that denies by default, and the pod's own record";
}

TEST_F(PublisherTest, SettingsAreThoseOfThePodsOwnNode) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  c.view.nodes["node-2"] = {.name = "node-2", .addresses = {ip("192.168.0.2")}, .pod_cidrs = {}};
  feed.apply(c.view.nodes.at("node-2"));
  flush();
  EXPECT_FALSE(api.told());
  c.view.nodes["node-1"].addresses.push_back(ip("fd00::1"));
  feed.apply(c.view.nodes.at("node-1"));
  flush();
  EXPECT_EQ(api.take(), 1U);
  EXPECT_THAT(api.body("settings"), HasSubstr("fd00::1"));
}

TEST_F(PublisherTest, ProbesAreThePodsOwn) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  c.view.pods.at(key("shop/api")).workload.probe_ports = {{Port{8080}, "/secret"}};
  apply_pod("shop/api");
  flush();
  EXPECT_EQ(api.take(), 1U);
  EXPECT_THAT(api.body("probes"), HasSubstr("/secret"));
  EXPECT_FALSE(web.told());
}

struct PublisherServicesTest : PublisherTest {
  PublisherServicesTest() {
    service = c.service("shop/api", "10.96.0.1", {{"app", "api"}}, {{.name = "http", .port = Port{80}, .target = {}, .node_port = {}}});
    slice = {.ns = "shop", .name = "api-1", .service = "api", .ports = {{.name = "http", .port = Port{8080}}}, .endpoints = {}};
    add_endpoint("shop/api", "10.0.0.3");
    feed.apply(service);
    feed.apply(slice);
    flush();
  }
  void add_endpoint(const char* pod, const char* address) {
    SliceEndpoint& endpoint = slice.endpoints.emplace_back();
    endpoint.addresses = {ip(address)};
    endpoint.pod = key(pod);
  }
  Service service;
  EndpointSlice slice;
};

TEST_F(PublisherServicesTest, AServiceThatLeadsToAnEgressPeerIsInScope) {
  const Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  const Receiver api(publisher, key("shop/api"), "uid-api");
  EXPECT_TRUE(web.has("service/shop/api"));
  EXPECT_FALSE(api.has("service/shop/api")) << "it names its callers, and calls nobody";
}

TEST_F(PublisherServicesTest, AnEndpointOutsideThePeerSetComesWithTheService) {
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  add_endpoint("shop/db", "10.0.0.4");
  feed.apply(slice);
  flush();
  EXPECT_EQ(web.take(), 2U);
  EXPECT_TRUE(web.has("pod/shop/db"));
  EXPECT_TRUE(web.has("pod/shop/api"));

  slice.endpoints.erase(slice.endpoints.begin());
  feed.apply(slice);
  flush();
  web.take();
  EXPECT_FALSE(web.has("service/shop/api")) << "no endpoint is a member any more";
  EXPECT_FALSE(web.has("pod/shop/db"));
  EXPECT_TRUE(web.has("pod/shop/api"));
}

TEST_F(PublisherServicesTest, ASliceMayComeBeforeItsPod) {
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  add_endpoint("shop/api-2", "10.0.0.8");
  feed.apply(slice);
  flush();
  web.take();
  EXPECT_FALSE(web.has("pod/shop/api-2"));
  c.pod("shop/api-2", "10.0.0.8", {{"app", "other"}});
  apply_pod("shop/api-2");
  flush();
  EXPECT_EQ(web.take(), 1U);
  EXPECT_TRUE(web.has("pod/shop/api-2"));
}

TEST_F(PublisherServicesTest, ADeletedServiceLeaves) {
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  EXPECT_THAT(web.body("settings"), HasSubstr("10.96.0.1/32"));
  feed.erase(service);
  flush();
  EXPECT_EQ(web.take(), 2U) << "and the settings: it was all that told the cluster's ranges";
  EXPECT_FALSE(web.has("service/shop/api"));
  EXPECT_THAT(web.body("settings"), Not(HasSubstr("10.96.0.1/32")));
}

TEST_F(PublisherServicesTest, WithoutSlicesThePodsThemselvesAreTheEndpoints) {
  feed.erase(slice);
  flush();
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  EXPECT_THAT(web.body("service/shop/api"), HasSubstr("10.0.0.3"));
  c.pod("shop/api-2", "10.0.0.8", {{"app", "api"}});
  apply_pod("shop/api-2");
  flush();
  web.take();
  EXPECT_THAT(web.body("service/shop/api"), HasSubstr("10.0.0.8"));
}

TEST_F(PublisherServicesTest, LookUpBringsAServiceWithItsEndpoints) {
  Receiver db(publisher, key("shop/db"), "uid-db");
  EXPECT_FALSE(db.has("service/shop/api"));
  ASSERT_TRUE(db.subscription().look_up(ip("10.96.0.1")));
  EXPECT_FALSE(db.told());
  EXPECT_EQ(db.take(), 2U);
  EXPECT_THAT(names_of(db), IsSupersetOf({"service/shop/api", "pod/shop/api"}));

  add_endpoint("shop/web-1", "10.0.0.1");
  feed.apply(slice);
  flush();
  EXPECT_TRUE(db.told()) << "what was looked up stays current";
  EXPECT_EQ(db.take(), 2U);

  db.subscription().forget("service/shop/api");
  EXPECT_EQ(db.take(), 3U);
  EXPECT_FALSE(db.has("pod/shop/web-1"));
}

TEST_F(PublisherServicesTest, LookUpOfANodeBringsTheNodePorts) {
  service.ports[0].node_port = Port{30080};
  feed.apply(service);
  flush();
  Receiver db(publisher, key("shop/db"), "uid-db");
  ASSERT_TRUE(db.subscription().look_up(ip("192.168.0.1")));
  db.take();
  EXPECT_THAT(names_of(db), IsSupersetOf({"nodes", "service/shop/api", "pod/shop/api"}));
  EXPECT_THAT(db.body("nodes"), HasSubstr("192.168.0.1"));

  feed.erase(c.view.nodes.at("node-1"));
  flush();
  db.take();
  EXPECT_FALSE(db.has("nodes"));
  db.subscription().forget("nodes");
  db.take();
  EXPECT_FALSE(db.has("service/shop/api"));
}

TEST_F(PublisherServicesTest, AHeadlessServiceIsNobodysDestination) {
  service.cluster_ips.clear();
  feed.apply(service);
  flush();
  const Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  EXPECT_FALSE(web.has("service/shop/api"));
}

TEST_F(PublisherTest, LookUpBringsAPodUntilItIsForgottenOrGone) {
  Receiver db(publisher, key("shop/db"), "uid-db");
  EXPECT_FALSE(db.subscription().look_up(ip("10.9.9.9")));
  ASSERT_TRUE(db.subscription().look_up(ip("10.0.0.5")));
  EXPECT_EQ(db.take(), 1U);
  EXPECT_TRUE(db.has("pod/other/x"));

  Pod& pod = c.view.pods.at(key("other/x"));
  pod.workload.meshed = false;
  feed.apply(pod);
  flush();
  EXPECT_EQ(db.take(), 1U);

  db.subscription().forget("pod/other/x");
  EXPECT_EQ(db.take(), 1U);
  EXPECT_FALSE(db.has("pod/other/x"));

  ASSERT_TRUE(db.subscription().look_up(ip("10.0.0.5")));
  db.take();
  feed.erase(pod);
  flush();
  ASSERT_TRUE(db.told());
  EXPECT_EQ(db.take(), 1U);
  feed.apply(pod);
  flush();
  EXPECT_FALSE(db.told()) << "it was said to be removed, and nobody has asked for it again";
}

TEST_F(PublisherTest, WhatIsInScopeAnywayNeedsNoForgetting) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  EXPECT_TRUE(api.subscription().look_up(ip("10.0.0.1")));
  EXPECT_EQ(api.take(), 0U);
  api.subscription().forget("pod/shop/web-1");
  api.subscription().forget("allow-list");
  api.subscription().forget("nonsense");
  EXPECT_EQ(api.take(), 0U);
}

TEST_F(PublisherTest, AStreamThatMovesHereKeepsWhatItLookedUpElsewhere) {
  std::map<std::string, std::string> held;
  {
    Receiver there(publisher, key("shop/db"), "uid-db");
    there.subscription().look_up(ip("10.0.0.5"));
    there.subscription().look_up(ip("10.0.0.1"));
    there.take();
    held = there.held();
  }
  Pod& moved = c.view.pods.at(key("shop/web-1"));
  moved.workload.meshed = false;
  feed.apply(moved);
  flush();
  held["pod/shop/web-2"] = "claimed";
  const auto here = publisher.subscribe(key("shop/db"), "uid-db", [](bool) {});
  const auto difference = here->difference(held);
  EXPECT_THAT(difference.resources, SizeIs(0));
  EXPECT_THAT(difference.removed, ElementsAre("pod/shop/web-1", "pod/shop/web-2"))
      << "one changed meanwhile and is asked for again, one was never held";
}

TEST_F(PublisherTest, DifferenceSendsOnlyWhatIsNotHeld) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  std::map<std::string, std::string> held = api.held();
  held["allow-list"] = "old";
  held["pod/gone/gone"] = "old";
  const auto again = publisher.subscribe(key("shop/api"), "uid-api", [](bool) {});
  const auto difference = again->difference(held);
  ASSERT_THAT(difference.resources, SizeIs(1));
  EXPECT_EQ(difference.resources[0]->name, "allow-list");
  EXPECT_THAT(difference.removed, ElementsAre("pod/gone/gone"));
}

// 300 callers of api, of which one more or less is an edit.
struct LargeSetTest : PublisherTest {
  LargeSetTest() {
    for (int i = 0; i < 300; ++i) apply_pod(caller(i, "web").c_str());
    flush();
  }
  std::string caller(int i, const std::string& app) {
    const std::string name = "shop/caller-" + std::to_string(1000 + i);
    c.view.pods.erase(key(name));
    c.pod(name, "10.1." + std::to_string(i / 100) + "." + std::to_string(i % 100 + 1), {{"app", app}});
    return name;
  }
  void relabel(int i, const std::string& app) { apply_pod(caller(i, app).c_str()); }
};

TEST_F(LargeSetTest, OneMemberIsAnEditOfTheSet) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  relabel(17, "other");
  flush();
  EXPECT_EQ(api.take(), 2U) << "the set and the record";
  EXPECT_EQ(api.deltas(), 1U);
  EXPECT_THAT(api.body(only_set_of(api)), Not(HasSubstr("caller-1017")));
  relabel(17, "web");
  flush();
  api.take();
  EXPECT_EQ(api.deltas(), 2U);
}

TEST_F(LargeSetTest, WhoSkipsVersionsGetsTheNewest) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  Receiver slow(publisher, key("shop/api"), "uid-api");
  for (int i = 0; i < 20; ++i) {
    relabel(i, "other");
    if (i > 0) relabel(i - 1, "web");
    flush();
    api.take();
  }
  EXPECT_EQ(api.deltas(), 20U);
  slow.take();
  EXPECT_EQ(slow.deltas(), 1U) << "one that leads over all of them";
  EXPECT_EQ(slow.held(), api.held());
  // Beyond what is remembered the whole comes.
  for (int i = 0; i < 300; ++i) {
    relabel(i, "other");
    flush();
    api.take();
  }
  slow.take();
  EXPECT_EQ(slow.deltas(), 1U);
  EXPECT_EQ(slow.held(), api.held());
}

TEST_F(LargeSetTest, TheOrderOfEventsDoesNotMatter) {
  // The same 12 relabellings in several orders, taken after each, after some, and at the end.
  std::vector<std::map<std::string, std::string>> outcomes;
  for (unsigned order = 0; order < 6; ++order) {
    std::vector<int> pods{3, 5, 8, 13, 21, 34, 55, 89, 144, 233, 1, 2};
    if (order % 2 == 1) std::reverse(pods.begin(), pods.end());
    Receiver eager(publisher, key("shop/api"), "uid-api");
    Receiver lazy(publisher, key("shop/api"), "uid-api");
    int step = 0;
    for (const int pod : pods) {
      relabel(pod, "other");
      if (order / 2 == 1) relabel(pod, "web");
      if (order / 2 == 2) flush();
      relabel(pod, "other");
      flush();
      eager.take();
      if (++step % 5 == 0) lazy.take();
    }
    lazy.take();
    EXPECT_GT(eager.deltas(), 0U);
    EXPECT_GT(lazy.deltas(), 0U);
    EXPECT_EQ(eager.held(), lazy.held());
    outcomes.push_back(eager.held());
    EXPECT_EQ(outcomes.front(), outcomes.back());
    for (const int pod : pods) relabel(pod, "web");
    flush();
  }
}

TEST_F(LargeSetTest, AStreamFromAnotherReplicaIsSentEditsWhereItsVersionIsKnown) {
  Receiver api(publisher, key("shop/api"), "uid-api");
  const HeldVersions before = api.versions();
  relabel(17, "other");
  flush();
  api.take();
  const auto again = publisher.subscribe(key("shop/api"), "uid-api", [](bool) {});
  EXPECT_EQ(again->difference(before).deltas.size(), 1U);
}

TEST_F(PublisherServicesTest, OneEndpointIsAnEditOfTheService) {
  for (int i = 0; i < 100; ++i) add_endpoint("shop/api", ("10.2.0." + std::to_string(i + 1)).c_str());
  feed.apply(slice);
  flush();
  Receiver web(publisher, key("shop/web-1"), "uid-web-1");
  slice.endpoints[50].ready = false;
  feed.apply(slice);
  flush();
  EXPECT_EQ(web.take(), 1U);
  EXPECT_EQ(web.deltas(), 1U);
}

TEST_F(PublisherTest, CallbacksMayEndAndMakeSubscriptions) {
  std::unique_ptr<Subscription> mine;
  std::unique_ptr<Subscription> other;
  std::unique_ptr<Subscription> next;
  mine = publisher.subscribe(key("shop/api"), "uid-api", [&](bool) {
    other.reset();
    next = publisher.subscribe(key("shop/api"), "uid-api", [](bool) {});
    mine.reset();
  });
  other = publisher.subscribe(key("shop/api"), "uid-api", [](bool) { FAIL() << "it had ended"; });
  mine->difference({});
  feed.erase(c.view.policies.at(key("shop/api")));
  flush();
  EXPECT_EQ(mine, nullptr);
  ASSERT_NE(next, nullptr);
  EXPECT_EQ(publisher.stats().subscriptions, 1U);
}

TEST_F(PublisherTest, TellsTheResourcesAndPodsOfAPolicy) {
  EXPECT_TRUE(publisher.resources_of(key("shop/api")).empty());
  const Receiver api(publisher, key("shop/api"), "uid-api");
  const auto resources = publisher.resources_of(key("shop/api"));
  EXPECT_THAT(resources, SizeIs(2));
  for (const auto& [name, hash] : resources) EXPECT_EQ(api.held().at(name), hash);
  EXPECT_THAT(publisher.selected_by(key("shop/web")), ElementsAre(key("shop/web-1"), key("shop/web-2")));
  EXPECT_TRUE(publisher.selected_by(key("shop/none")).empty());
}

}  // namespace
}  // namespace postern::test
