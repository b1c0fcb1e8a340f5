#include "proxy/judge.hpp"

#include <gtest/gtest.h>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern {
namespace {

using test::ip;

// web and db may reach api:80 by label; old has no sidecar; 10.9.0.0/16 is the cluster's.
class JudgeTest : public testing::Test {
 protected:
  JudgeTest() {
    cluster.ns("default");
    cluster.pod("default/api", "10.9.0.1", {{"app", "api"}});
    cluster.pod("default/web", "10.9.0.2", {{"app", "web"}});
    cluster.pod("default/old", "10.9.0.3", {{"app", "web"}}).workload.meshed = false;
    cluster.pod("default/other", "10.9.0.4", {{"app", "other"}});
    NetworkPolicy& policy = cluster.policy("default/api-allow", test::labelled({{"app", "api"}}));
    policy.ingress.push_back(
        {.ports = {test::on(80)}, .peers = {test::pods(test::labelled({{"app", "web"}})), test::block("192.0.2.0/24")}});
    cluster.settings.cluster_cidrs = {test::cidr("10.9.0.0/16")};
    cluster.settings.node_addresses = {ip("10.9.255.1")};
  }
  static std::shared_ptr<const PeerIdentity> identity(std::string_view id) {
    auto made = std::make_shared<PeerIdentity>();
    made->id = SpiffeId::parse(id).value();
    made->serial = "4B2F";
    return made;
  }
  static std::string pod_id(std::string_view name, std::string_view uid = "") {
    return "spiffe://example.org/ns/default/sa/default/pod/" + std::string(name) + "/" +
           (uid.empty() ? "uid-" + std::string(name) : std::string(uid));
  }
  Judgement inbound(std::string_view from, std::string_view id = {}, std::uint16_t port = 80) {
    snapshot = cluster.compile("default/api");
    return judge(snapshot.get(), {Direction::inbound, ip(from), Port{port}, id.empty() ? nullptr : identity(id)});
  }
  Judgement outbound(std::string_view to, std::string_view id = {}, bool tls = false) {
    snapshot = cluster.compile("default/web");
    return judge(snapshot.get(), {Direction::outbound, ip(to), Port{80}, id.empty() ? nullptr : identity(id), tls});
  }

  test::ClusterBuilder cluster;
  std::shared_ptr<const PolicySnapshot> snapshot;
};

TEST_F(JudgeTest, WithoutPolicyEverythingIsRefused) {
  const Judgement judgement = judge(nullptr, {Direction::inbound, ip("10.9.0.2"), Port{80}, identity(pod_id("web"))});
  EXPECT_FALSE(judgement.allowed);
  EXPECT_FALSE(judgement.decided);
  EXPECT_EQ(judgement.reason, Reason::no_policy);
}

TEST_F(JudgeTest, AnIdentityIsDecidedOn) {
  const Judgement judgement = inbound("10.9.0.2", pod_id("web"));
  EXPECT_TRUE(judgement.allowed);
  EXPECT_TRUE(judgement.decided);
  ASSERT_NE(judgement.peer, nullptr);
  EXPECT_EQ(judgement.peer->name, "web");
  EXPECT_EQ(inbound("10.9.0.4", pod_id("other")).reason, Reason::denied);
  EXPECT_EQ(inbound("10.9.0.2", pod_id("web"), 81).reason, Reason::denied);
}

TEST_F(JudgeTest, TheIdentityCountsAndNotTheAddress) {
  EXPECT_TRUE(inbound("10.9.0.4", pod_id("web")).allowed);
  EXPECT_FALSE(inbound("10.9.0.2", pod_id("other")).allowed);
}

TEST_F(JudgeTest, AnIdentityOfNobodyIsRefusedWithItsReason) {
  const auto why = [this](std::string_view id) {
    const Judgement judgement = inbound("10.9.0.2", id);
    EXPECT_FALSE(judgement.allowed || judgement.decided);
    EXPECT_EQ(judgement.reason, Reason::identity_unknown);
    return judgement.detail;
  };
  EXPECT_EQ(why(pod_id("gone")), name_of(IdentityError::unknown_workload));
  EXPECT_EQ(why(pod_id("web", "uid-of-yesterday")), name_of(IdentityError::uid_mismatch));
}

TEST_F(JudgeTest, AnotherTrustDomainIsRefusedUntilItIsAllowed) {
  const std::string partner = "spiffe://example.com/ns/default/sa/default/pod/web/uid-web";
  const Judgement judgement = inbound("192.0.2.7", partner);
  EXPECT_FALSE(judgement.allowed);
  EXPECT_EQ(judgement.reason, Reason::trust_domain_not_allowed);
  EXPECT_EQ(inbound("10.9.0.2", partner).reason, Reason::trust_domain_not_allowed) << "nor is it the pod of that address";
  cluster.view.namespaces.at("default").allow_trust_domains = {"example.com"};
  EXPECT_TRUE(inbound("192.0.2.7", partner).allowed) << "by the block";
  EXPECT_EQ(inbound("192.0.2.7", partner).peer, nullptr);
  EXPECT_EQ(inbound("10.9.0.2", partner).reason, Reason::denied) << "it is not web, whatever it calls itself";
  cluster.settings.denied.spiffe_ids = {partner};
  EXPECT_EQ(inbound("192.0.2.7", partner).reason, Reason::identity_denied);
  cluster.settings.denied = {};
  EXPECT_EQ(outbound("10.9.0.1", partner).reason, Reason::identity_unknown) << "a pod answers with its own";
}

TEST_F(JudgeTest, AnIdOfNoPodIsRefusedUntilAPolicyListsIt) {
  const std::string legacy = "spiffe://example.org/something";
  const Judgement judgement = inbound("10.9.0.2", legacy);
  EXPECT_FALSE(judgement.allowed);
  EXPECT_EQ(judgement.reason, Reason::identity_unknown);
  EXPECT_EQ(judgement.detail, name_of(IdentityError::not_a_workload));
  cluster.view.policies.at(test::key("default/api-allow")).allow_spiffe_ids = {legacy, pod_id("gone")};
  EXPECT_TRUE(inbound("10.9.0.2", legacy).allowed);
  EXPECT_FALSE(inbound("10.9.0.2", legacy, 81).allowed);
  EXPECT_EQ(inbound("10.9.0.2", pod_id("gone")).reason, Reason::identity_unknown) << "the ID of a pod is a pod's";
}

TEST_F(JudgeTest, AnAccountNeedsTheAddressOfOneOfItsPods) {
  EXPECT_TRUE(inbound("10.9.0.2", "spiffe://example.org/ns/default/sa/default").allowed);
  EXPECT_FALSE(inbound("10.9.0.4", "spiffe://example.org/ns/default/sa/default").allowed);
  EXPECT_EQ(inbound("10.9.7.7", "spiffe://example.org/ns/default/sa/default").reason, Reason::identity_unknown);
}

TEST_F(JudgeTest, WhoAnswersMustBeWhoIsAtTheAddress) {
  EXPECT_TRUE(outbound("10.9.0.1", pod_id("api")).allowed);
  EXPECT_EQ(outbound("10.9.0.1", pod_id("other")).reason, Reason::identity_mismatch);
  EXPECT_EQ(outbound("10.9.0.1", pod_id("gone")).reason, Reason::identity_unknown);
}

TEST_F(JudgeTest, ADeniedIdentityIsRefusedWhateverPolicySays) {
  cluster.settings.denied.spiffe_ids = {pod_id("web")};
  Judgement judgement = inbound("10.9.0.2", pod_id("web"));
  EXPECT_FALSE(judgement.allowed || judgement.decided);
  EXPECT_EQ(judgement.reason, Reason::identity_denied);
  EXPECT_EQ(judgement.detail, "spiffe_id");
  cluster.settings.denied = {{"4B2F"}, {}};
  judgement = inbound("10.9.0.2", pod_id("web"));
  EXPECT_EQ(judgement.reason, Reason::identity_denied);
  EXPECT_EQ(judgement.detail, "serial");
  EXPECT_EQ(outbound("10.9.0.1", pod_id("api")).reason, Reason::identity_denied);
  cluster.settings.denied = {{"4B2E", "FF"}, {"spiffe://example.org/ns/default/sa/default", pod_id("other")}};
  EXPECT_TRUE(inbound("10.9.0.2", pod_id("web")).allowed) << "whole serials and whole IDs only";
  EXPECT_TRUE(outbound("10.9.0.1", pod_id("api")).allowed);
}

TEST_F(JudgeTest, ADeniedPodHasNoPlaintextEither) {
  cluster.view.pods.at(test::key("default/api")).mtls = MtlsMode::permissive;
  ASSERT_TRUE(inbound("10.9.0.3").allowed);
  cluster.settings.denied.spiffe_ids = {pod_id("old")};
  EXPECT_EQ(inbound("10.9.0.3").reason, Reason::identity_denied);
  EXPECT_EQ(inbound("10.9.0.2").reason, Reason::plaintext_refused);
}

TEST_F(JudgeTest, UntilSomebodyAnswersTheRecordCounts) {
  cluster.egress_policy("default/web-out", test::labelled({{"app", "web"}}))
      .egress.push_back({.ports = {}, .peers = {test::pods(test::labelled({{"app", "api"}}))}});
  EXPECT_TRUE(outbound("10.9.0.1", {}, true).allowed);
  EXPECT_EQ(outbound("10.9.0.4", {}, true).reason, Reason::denied);
}

TEST_F(JudgeTest, PlaintextFromAMeshedAddressIsRefused) {
  EXPECT_EQ(inbound("10.9.0.2").reason, Reason::plaintext_refused);
  for (Pod* pod : {&cluster.view.pods.at(test::key("default/api"))}) pod->mtls = MtlsMode::permissive;
  EXPECT_EQ(inbound("10.9.0.2").reason, Reason::plaintext_refused) << "its sidecar speaks TLS, also in permissive mode";
}

TEST_F(JudgeTest, PlaintextMatchesAPeerSetInPermissiveModeOnly) {
  EXPECT_EQ(inbound("10.9.0.3").reason, Reason::denied);
  cluster.view.pods.at(test::key("default/api")).mtls = MtlsMode::permissive;
  const Judgement judgement = inbound("10.9.0.3");
  EXPECT_TRUE(judgement.allowed);
  EXPECT_TRUE(judgement.identity_by_address);
}

TEST_F(JudgeTest, PlaintextFromOutsideMatchesAddressBlocks) {
  EXPECT_TRUE(inbound("192.0.2.9").allowed);
  EXPECT_EQ(inbound("198.51.100.9").reason, Reason::denied);
}

TEST_F(JudgeTest, WhereASidecarDoesNotListenPlaintextIsNoProofEither) {
  Workload& web = cluster.view.pods.at(test::key("default/web")).workload;
  web.excluded_outbound_ports = {Port{80}};
  EXPECT_EQ(inbound("10.9.0.2").reason, Reason::plaintext_refused);
  cluster.view.pods.at(test::key("default/api")).mtls = MtlsMode::permissive;
  EXPECT_TRUE(inbound("10.9.0.2").allowed);
}

TEST_F(JudgeTest, WhatIsExpectedOfASource) {
  const auto expected = [this](std::string_view source, std::uint16_t port = 80) {
    snapshot = cluster.compile("default/api");
    return expect_inbound(*snapshot, ip(source), Port{port});
  };
  EXPECT_EQ(expected("10.9.0.2"), Expectation::tls);
  EXPECT_EQ(expected("10.9.0.3"), Expectation::plaintext);
  EXPECT_EQ(expected("10.9.255.1"), Expectation::plaintext);
  EXPECT_EQ(expected("192.0.2.9"), Expectation::plaintext);
  EXPECT_EQ(expected("10.9.7.7"), Expectation::peek);
  cluster.view.pods.at(test::key("default/web")).workload.excluded_outbound_ports = {Port{81}};
  EXPECT_EQ(expected("10.9.0.2", 81), Expectation::plaintext);
  cluster.view.pods.at(test::key("default/api")).workload.port_mtls = {{Port{82}, MtlsMode::spiffe}};
  EXPECT_EQ(expected("192.0.2.9", 82), Expectation::peek);
  EXPECT_EQ(expected("10.9.255.1", 82), Expectation::plaintext);
  EXPECT_EQ(expected("10.9.0.2", 82), Expectation::tls);
}

}  // namespace
}  // namespace postern
