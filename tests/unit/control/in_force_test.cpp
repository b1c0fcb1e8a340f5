#include "control/in_force.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/cluster_feed.hpp"

namespace postern::test {
namespace {

using std::chrono::system_clock;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::SizeIs;

constexpr system_clock::time_point acked_at{std::chrono::milliseconds{1'900'000'000'250}};

struct InForceTest : testing::Test {
  InForceTest() {
    c.ns("shop");
    c.pod("shop/api-1", "10.0.0.1", {{"app", "api"}});
    c.pod("shop/api-2", "10.0.0.2", {{"app", "api"}});
    c.pod("shop/web", "10.0.0.3", {{"app", "web"}});
    c.policy("shop/api", labelled({{"app", "api"}})).ingress = {{.ports = {on(80)}, .peers = {pods(labelled({{"app", "web"}}))}}};
    c.view.policies.at(key("shop/api")).generation = 3;
    feed.list(c);
    clock.changed(publisher.flush(), store, publisher, now);
    connect("shop/api-1");
    connect("shop/api-2");
  }

  void connect(const char* pod) {
    const ObjectKey id = key(pod);
    receivers[id] = std::make_unique<Receiver>(publisher, id, c.view.pods.at(id).workload.uid);
    streams[id] = {.connected = true, .acknowledged = &receivers[id]->versions(), .since = acked_at, .refusal = {}};
  }
  StreamState stream(const WorkloadKey& pod) const {
    const auto found = streams.find(pod);
    return found == streams.end() ? StreamState{} : found->second;
  }
  PolicyStatus status(const char* policy = "shop/api") {
    const ObjectKey id = key(policy);
    const auto all = policy_status(
        store, publisher, [this](const WorkloadKey& pod) { return stream(pod); }, id.ns, id.name);
    return all.size() == 1 ? all[0] : PolicyStatus{};
  }
  std::vector<PodEnforcement> states(const char* policy = "shop/api") {
    std::vector<PodEnforcement> states;
    for (const PodStatus& pod : status(policy).pods) states.push_back(pod.state);
    return states;
  }
  void edit(std::uint16_t port) {
    NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
    policy.ingress[0].ports = {on(port)};
    ++policy.generation;
    feed.apply(policy);
    clock.changed(publisher.flush(), store, publisher, now);
  }
  auto settle() {
    return clock.settle(
        publisher, [this](const WorkloadKey& pod) { return stream(pod); }, now);
  }

  ClusterBuilder c;
  ClusterStore store;
  ClusterFeed feed{store};
  Publisher publisher{store};
  InForceClock clock;
  InForceClock::Time now{};
  std::map<WorkloadKey, std::unique_ptr<Receiver>> receivers;
  std::map<WorkloadKey, StreamState> streams;
};

TEST_F(InForceTest, EnforcedSinceTheAcknowledgement) {
  const PolicyStatus found = status();
  EXPECT_EQ(found.generation, 3);
  EXPECT_THAT(found.not_enforced, IsEmpty());
  ASSERT_THAT(found.pods, SizeIs(2));
  const PodStatus enforced{.pod = key("shop/api-1"), .state = PodEnforcement::enforced, .since = acked_at, .reason = {}};
  EXPECT_EQ(found.pods[0], enforced);
}

TEST_F(InForceTest, LaggingUntilEverythingTheRulesNeedIsAcknowledged) {
  edit(81);
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::lagging, PodEnforcement::lagging));
  EXPECT_THAT(status().pods[0].reason, HasSubstr("not acknowledged"));
  receivers[key("shop/api-1")]->take();
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::enforced, PodEnforcement::lagging));

  // A new member: the rules are the same, who may come is not.
  feed.apply(c.pod("shop/web-2", "10.0.0.9", {{"app", "web"}}));
  publisher.flush();
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::lagging, PodEnforcement::lagging));
}

TEST_F(InForceTest, ARefusalIsTheReason) {
  edit(81);
  streams[key("shop/api-1")].refusal = "peer set is missing";
  EXPECT_EQ(status().pods[0].reason, "refused: peer set is missing");
  EXPECT_EQ(status().pods[0].state, PodEnforcement::lagging);
}

TEST_F(InForceTest, NothingAcknowledgedIsLagging) {
  streams[key("shop/api-1")].acknowledged = nullptr;
  EXPECT_EQ(states()[0], PodEnforcement::lagging);
}

TEST_F(InForceTest, DisconnectedAndUnmeshed) {
  streams.erase(key("shop/api-1"));
  Pod& pod = c.view.pods.at(key("shop/api-2"));
  pod.workload.meshed = false;
  feed.apply(pod);
  publisher.flush();
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::disconnected, PodEnforcement::unmeshed));
}

TEST_F(InForceTest, AnAuditPolicyIsNeverCalledEnforced) {
  c.view.policies.at(key("shop/api")).mode = EnforcementMode::audit;
  feed.apply(c.view.policies.at(key("shop/api")));
  publisher.flush();
  for (auto& [pod, receiver] : receivers) receiver->take();
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::audit, PodEnforcement::audit));

  c.view.policies.at(key("shop/api")).mode.reset();
  c.view.namespaces.at("shop").mode = EnforcementMode::audit;
  feed.apply(c.view.policies.at(key("shop/api")));
  feed.apply(c.view.namespaces.at("shop"));
  publisher.flush();
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::audit, PodEnforcement::audit));
}

TEST_F(InForceTest, AnEditThatCompilesToTheSameInheritsTheAcknowledgement) {
  edit(80);
  EXPECT_EQ(status().generation, 4);
  EXPECT_THAT(states(), ElementsAre(PodEnforcement::enforced, PodEnforcement::enforced));
}

TEST_F(InForceTest, NamesWhatATcpProxyCannotEnforce) {
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  policy.isolates_egress = true;
  policy.ingress.push_back({.ports = {on(53, Protocol::udp), on(53)}, .peers = {}});
  policy.egress = {{.ports = {range(1, 9, Protocol::sctp), named("dns", Protocol::udp), every(Protocol::udp)}, .peers = {}}};
  feed.apply(policy);
  publisher.flush();
  EXPECT_THAT(status().not_enforced, ElementsAre("ingress rule 2: UDP port 53", "egress rule 1: SCTP port 1-9, UDP port dns, UDP"));
}

TEST_F(InForceTest, OfOneNamespaceOrOneName) {
  c.ns("other");
  feed.apply(c.policy("other/api"));
  feed.apply(c.policy("shop/web"));
  publisher.flush();
  const auto count = [&](std::string_view ns, std::string_view name) {
    return policy_status(
               store, publisher, [this](const WorkloadKey& pod) { return stream(pod); }, ns, name)
        .size();
  };
  EXPECT_EQ(count("", ""), 3U);
  EXPECT_EQ(count("shop", ""), 2U);
  EXPECT_EQ(count("", "api"), 2U);
  EXPECT_EQ(count("shop", "api"), 1U);
  EXPECT_EQ(count("none", ""), 0U);
}

TEST_F(InForceTest, IsToldAsJson) {
  streams.erase(key("shop/api-2"));
  EXPECT_EQ(encode(std::vector{status()}), R"({"policies":[{"namespace":"shop","name":"api","generation":3,"pods":[)"
                                           R"({"namespace":"shop","name":"api-1","state":"enforced","since":"2030-03-17T17:46:40.250Z"},)"
                                           R"({"namespace":"shop","name":"api-2","state":"disconnected"}],"notEnforced":[]}]})");
}

TEST_F(InForceTest, TheClockRunsFromTheEditToTheLastConnectedSidecar) {
  EXPECT_EQ(clock.pending(), 0U) << "what was found at the start is no edit";
  edit(81);
  EXPECT_EQ(clock.pending(), 1U);
  EXPECT_THAT(settle(), IsEmpty());
  now += std::chrono::milliseconds(100);
  receivers[key("shop/api-2")]->take();
  EXPECT_THAT(settle(), IsEmpty());
  now += std::chrono::milliseconds(150);
  receivers[key("shop/api-1")]->take();
  const auto settled = settle();
  ASSERT_THAT(settled, SizeIs(1));
  EXPECT_EQ(settled[0].policy, key("shop/api"));
  EXPECT_EQ(settled[0].generation, 4);
  EXPECT_EQ(settled[0].enforcing, 2U);
  EXPECT_FALSE(settled[0].audit);
  EXPECT_DOUBLE_EQ(settled[0].took.count(), 0.25);
  EXPECT_EQ(clock.pending(), 0U);
}

TEST_F(InForceTest, TheClockDoesNotWaitForTheDisconnected) {
  edit(81);
  streams.erase(key("shop/api-1"));
  receivers[key("shop/api-2")]->take();
  EXPECT_THAT(settle(), SizeIs(1));
}

TEST_F(InForceTest, TheClockSaysNothingOfAPolicyThatNobodyEnforces) {
  streams.clear();
  edit(81);
  EXPECT_THAT(settle(), IsEmpty());
  EXPECT_EQ(clock.pending(), 0U);
  feed.erase(c.view.policies.at(key("shop/api")));
  clock.changed(publisher.flush(), store, publisher, now);
  EXPECT_THAT(settle(), IsEmpty());
  EXPECT_EQ(clock.pending(), 0U);
}

TEST_F(InForceTest, AnEditThatIsNotInForceIsOverdueOnce) {
  constexpr std::chrono::seconds patience{10};
  edit(81);
  receivers[key("shop/api-2")]->take();
  now += patience - std::chrono::milliseconds(1);
  EXPECT_THAT(settle(), IsEmpty());
  EXPECT_THAT(clock.overdue(now, patience), IsEmpty());
  now += std::chrono::milliseconds(1);
  EXPECT_THAT(clock.overdue(now, patience), ElementsAre(key("shop/api")));
  EXPECT_THAT(clock.overdue(now, patience), IsEmpty());
  edit(82);  // another edit
  now += patience;
  EXPECT_THAT(clock.overdue(now, patience), ElementsAre(key("shop/api")));
  for (auto& [pod, receiver] : receivers) receiver->take();
  EXPECT_THAT(settle(), SizeIs(1));
  EXPECT_THAT(clock.overdue(now + patience, patience), IsEmpty());
}

TEST_F(InForceTest, ANewerEditStartsTheClockAnew) {
  edit(81);
  now += std::chrono::seconds(1);
  edit(82);
  now += std::chrono::seconds(1);
  for (auto& [pod, receiver] : receivers) receiver->take();
  const auto settled = settle();
  ASSERT_THAT(settled, SizeIs(1));
  EXPECT_DOUBLE_EQ(settled[0].took.count(), 1.0);
}

TEST_F(InForceTest, AnEditThatIsInForceIsToldOfWithTheNextOneSeenAlready) {
  edit(81);
  now += std::chrono::seconds(1);
  for (auto& [pod, receiver] : receivers) receiver->take();
  NetworkPolicy& policy = c.view.policies.at(key("shop/api"));
  policy.ingress[0].ports = {on(82)};
  ++policy.generation;
  feed.apply(policy);
  const auto settled = settle();
  ASSERT_THAT(settled, SizeIs(1));
  EXPECT_EQ(settled[0].generation, 4) << "the newer one is not compiled yet";
  clock.changed(publisher.flush(), store, publisher, now);
  EXPECT_THAT(settle(), IsEmpty());
  EXPECT_EQ(clock.pending(), 1U);
}

TEST_F(InForceTest, AnEditInAuditIsSaidToBe) {
  c.view.policies.at(key("shop/api")).mode = EnforcementMode::audit;
  edit(81);
  for (auto& [pod, receiver] : receivers) receiver->take();
  const auto settled = settle();
  ASSERT_THAT(settled, SizeIs(1));
  EXPECT_TRUE(settled[0].audit);
}

}  // namespace
}  // namespace postern::test
