#include "proxy/held_policy.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "authz/compiler.hpp"
#include "certs/digest.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern {
namespace {

using test::at;
using test::ip;
using test::key;
using testing::HasSubstr;

// web, other and api; api takes connections from web only.
class HeldPolicyTest : public testing::Test {
 protected:
  HeldPolicyTest() {
    settings.trust_domain = TrustDomain::parse("example.org").value();
    cluster.settings = settings;
    cluster.ns("default");
    cluster.pod("default/web", "10.0.0.1", {{"app", "web"}});
    cluster.pod("default/other", "10.0.0.2", {{"app", "other"}});
    cluster.pod("default/api", "10.0.0.3", {{"app", "api"}});
    AllowListRecord list;
    list.list.ingress.isolating.push_back({"default", "api", false, false});
    AllowRule rule;
    rule.peers.push_back({RuleOrigin{"default", "api", 0, 0}, PeerSetRef{0}});
    list.list.ingress.rules.push_back(rule);
    list.peer_sets.push_back("webs");
    first.mark = mark(10);
    add(first, "settings", encode(settings));
    add(first, "allow-list", encode(list));
    add(first, peer_set_resource_name("webs"), encode(members({key("default/web")})));
    for (const char* name : {"default/web", "default/api"}) add_pod(first, name);
  }
  static Mark mark(std::uint64_t version, std::string epoch = "e1") { return {std::move(epoch), {{"pods", version}}}; }
  static PeerSetRecord members(std::vector<WorkloadKey> keys) {
    PeerSetRecord set;
    set.pods = test::labelled({{"app", "web"}});
    set.members = std::move(keys);
    return set;
  }
  static void add(Update& update, std::string name, std::string body) {
    std::string hash = content_hash(body);
    update.resources.push_back(std::make_shared<const Resource>(Resource{std::move(name), std::move(hash), std::move(body)}));
  }
  void add_pod(Update& update, const char* name) {
    add(update, pod_resource_name(key(name)), encode(record_of(cluster.view.pods.at(key(name)), cluster.view, MtlsMode::strict)));
  }
  static bool allows(const PolicySnapshot& snapshot, const char* address) {
    const Workload* peer = snapshot.workload_at(ip(address));
    return decide(&snapshot, PolicyDirection::ingress, Peer{peer, ip(address), true}, Port{80}).allowed();
  }

  MeshSettings settings;
  test::ClusterBuilder cluster;
  Update first;
  HeldPolicy held{key("default/api"), [] {
                    MeshSettings local;
                    local.trust_domain = TrustDomain::parse("example.org").value();
                    local.cluster_cidrs = {test::cidr("10.0.0.0/8")};
                    local.node_addresses = {ip("169.254.0.1")};
                    local.denied.serials = {"0A"};
                    return local;
                  }()};
};

TEST_F(HeldPolicyTest, TheFirstUpdateIsWhatDecides) {
  const auto snapshot = held.apply(first, 1, {});
  ASSERT_TRUE(snapshot) << snapshot.error().text();
  EXPECT_TRUE(allows(**snapshot, "10.0.0.1"));
  EXPECT_FALSE(allows(**snapshot, "10.0.0.2"));
  EXPECT_EQ((*snapshot)->generation(), 1U);
  EXPECT_EQ(held.hashes().size(), 5U);
  EXPECT_EQ(held.mark(), mark(10));
}

TEST_F(HeldPolicyTest, TheSidecarsOwnRangesAndNodeAddressesCount) {
  const auto snapshot = held.apply(first, 1, {});
  ASSERT_TRUE(snapshot);
  EXPECT_TRUE((*snapshot)->is_own_node(ip("169.254.0.1")));
  EXPECT_EQ((*snapshot)->resolve(at("10.9.9.9", 80), 0).kind, Destination::Kind::unknown);
  EXPECT_TRUE(held.parts().settings->node_addresses.empty()) << "what is held is what was sent";
}

TEST_F(HeldPolicyTest, TheSidecarsOwnDenyListCountsBesideTheMeshes) {
  settings.denied = {{"0B"}, {"spiffe://example.org/gone"}};
  Update update = first;
  for (ResourcePtr& resource : update.resources) {
    if (resource->name == "settings") resource = std::make_shared<const Resource>(Resource{"settings", "other", encode(settings)});
  }
  const auto snapshot = held.apply(update, 1, {});
  ASSERT_TRUE(snapshot) << snapshot.error().text();
  EXPECT_EQ((*snapshot)->settings().denied, (DeniedIdentities{{"0A", "0B"}, {"spiffe://example.org/gone"}}));
  EXPECT_EQ(held.parts().settings->denied, settings.denied) << "what is held is what was sent";
}

TEST_F(HeldPolicyTest, AnOlderMarkIsNeverTaken) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  Update older;
  older.mark = mark(9);
  add(older, peer_set_resource_name("webs"), encode(members({key("default/web"), key("default/other")})));
  EXPECT_TRUE(held.is_older(older.mark));
  EXPECT_THAT(held.apply(older, 2, {}).error().text(), HasSubstr("older than what is enforced"));
  EXPECT_EQ(held.mark(), mark(10));
  EXPECT_EQ(held.parts().peer_sets.at("webs").members.size(), 1U);
}

TEST_F(HeldPolicyTest, AMarkThatKnowsLessOfAnyKindIsOlder) {
  first.mark.versions["networkpolicies"] = 5;
  ASSERT_TRUE(held.apply(first, 1, {}));
  EXPECT_TRUE(held.is_older(mark(11)));
}

TEST_F(HeldPolicyTest, AnotherEpochIsAnotherHistory) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  Update restored;
  restored.mark = mark(3, "e2");
  EXPECT_TRUE(held.is_new_epoch(restored.mark));
  EXPECT_FALSE(held.is_older(restored.mark));
  const auto snapshot = held.apply(restored, 2, {});
  ASSERT_TRUE(snapshot);
  EXPECT_EQ(*snapshot, nullptr) << "nothing but the mark has changed";
  EXPECT_EQ(held.mark(), restored.mark);
}

TEST_F(HeldPolicyTest, ABadUpdateChangesNothingAtAll) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  const SnapshotParts before = held.parts();
  Update bad;
  bad.mark = mark(11);
  bad.removed = {pod_resource_name(key("default/web"))};
  add(bad, "settings", R"({"surprise":1})");
  EXPECT_FALSE(held.apply(bad, 2, {}));
  EXPECT_EQ(held.parts(), before);
  EXPECT_EQ(held.mark(), mark(10));
  EXPECT_EQ(held.hashes().size(), 5U);
}

TEST_F(HeldPolicyTest, HalfAStateIsRefused) {
  Update half = first;
  std::erase_if(half.resources, [](const ResourcePtr& each) { return each->name.starts_with("peer-set/"); });
  EXPECT_FALSE(held.apply(half, 1, {}));
  half = first;
  std::erase_if(half.resources, [](const ResourcePtr& each) { return each->name == "allow-list"; });
  EXPECT_FALSE(held.apply(half, 1, {}));
  EXPECT_TRUE(held.hashes().empty());
}

TEST_F(HeldPolicyTest, AnotherWorkloadsStateIsRefused) {
  HeldPolicy other(key("default/nobody"), settings);
  EXPECT_FALSE(other.apply(first, 1, {}));
}

TEST_F(HeldPolicyTest, AnotherTrustDomainIsRefused) {
  settings.trust_domain = TrustDomain::parse("evil.org").value();
  Update other;
  other.mark = mark(1);
  add(other, "settings", encode(settings));
  EXPECT_THAT(held.apply(other, 1, {}).error().text(), HasSubstr("trust domain is evil.org"));
}

TEST_F(HeldPolicyTest, AnUpdateIsAppliedToWhatIsHeld) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  Update next;
  next.mark = mark(11);
  add(next, peer_set_resource_name("webs"), encode(members({key("default/other")})));
  add_pod(next, "default/other");
  next.removed = {pod_resource_name(key("default/web"))};
  const auto snapshot = held.apply(next, 2, {});
  ASSERT_TRUE(snapshot) << snapshot.error().text();
  EXPECT_TRUE(allows(**snapshot, "10.0.0.2"));
  EXPECT_EQ((*snapshot)->workload_at(ip("10.0.0.1")), nullptr);
}

// `other` joins the set, as edits to what is held.
struct HeldPolicyDeltaTest : HeldPolicyTest {
  HeldPolicyDeltaTest() {
    const std::string before = encode(members({key("default/web")}));
    const std::string after = encode(members({key("default/other"), key("default/web")}));
    next.mark = mark(11);
    next.deltas = {{peer_set_resource_name("webs"), content_hash(before), content_hash(after), edits_between(before, after, 8).value()}};
    add_pod(next, "default/other");
  }
  // The error, after it was seen that nothing of the update was taken.
  std::string refusal() {
    const SnapshotParts parts = held.parts();
    const auto hashes = held.hashes();
    const Mark mark = held.mark();
    const auto applied = held.apply(next, 2, {});
    EXPECT_EQ(held.parts(), parts);
    EXPECT_EQ(held.hashes(), hashes);
    EXPECT_EQ(held.mark(), mark);
    return applied ? "taken" : applied.error().text();
  }
  ResourceDelta& delta() { return next.deltas[0]; }

  Update next;
};

TEST_F(HeldPolicyDeltaTest, EditsAreAppliedToWhatIsHeld) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  const auto snapshot = held.apply(next, 2, {});
  ASSERT_TRUE(snapshot) << snapshot.error().text();
  EXPECT_TRUE(allows(**snapshot, "10.0.0.1"));
  EXPECT_TRUE(allows(**snapshot, "10.0.0.2"));
  EXPECT_EQ(held.hashes().at(delta().name), delta().hash);
  EXPECT_EQ(content_hash(body_of(held.parts(), delta().name).value()), delta().hash);
}

TEST_F(HeldPolicyDeltaTest, EditsAreAppliedToWhatCameBackFromTheStateFile) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  HeldPolicy again(key("default/api"), settings);
  ASSERT_TRUE(again.apply(held.whole(), 1, {}));
  EXPECT_TRUE(again.apply(next, 2, {}));
}

TEST_F(HeldPolicyDeltaTest, EditsToSomethingElseAreRefused) {
  EXPECT_THAT(refusal(), HasSubstr("does not hold"));
  ASSERT_TRUE(held.apply(first, 1, {}));
  delta().base = content_hash("another");
  EXPECT_THAT(refusal(), HasSubstr("edits to " + delta().base + "; this sidecar holds"));
  delta().name = peer_set_resource_name("nobodys");
  EXPECT_THAT(refusal(), HasSubstr("does not hold"));
}

TEST_F(HeldPolicyDeltaTest, EditsThatComeToAnotherHashAreRefused) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  delta().hash = content_hash("another");
  EXPECT_THAT(refusal(), HasSubstr("and should come to " + delta().hash));
}

TEST_F(HeldPolicyDeltaTest, EditsThatDoNotFitAreRefused) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  delta().edits[0].at = 1U << 20;
  EXPECT_THAT(refusal(), HasSubstr("outside the text"));
}

TEST_F(HeldPolicyDeltaTest, RootsAreNoEdits) {
  add(first, std::string(trust_bundle_name), encode_trust_bundle(1, "roots"));
  ASSERT_TRUE(held.apply(first, 1, {}));
  delta().name = trust_bundle_name;
  delta().base = held.hashes().at(delta().name);
  EXPECT_THAT(refusal(), HasSubstr("roots are sent whole"));
}

TEST_F(HeldPolicyTest, WhatIsKeptIsWhatIsHeld) {
  ASSERT_TRUE(held.apply(first, 1, {}));
  HeldPolicy again(key("default/api"), settings);
  const Update kept = held.whole();
  ASSERT_TRUE(again.apply(kept, 1, {}));
  EXPECT_EQ(again.parts(), held.parts());
  EXPECT_EQ(again.hashes(), held.hashes());
  EXPECT_EQ(again.mark(), held.mark());
}

TEST_F(HeldPolicyTest, OnlyLookedUpPodsWithoutConnectionsAreForgotten) {
  add_pod(first, "default/other");
  ASSERT_TRUE(held.apply(first, 1, {}));
  EXPECT_THAT(held.looked_up_and_unused({}), testing::ElementsAre(pod_resource_name(key("default/other"))));
  EXPECT_THAT(held.looked_up_and_unused({ip("10.0.0.2")}), testing::IsEmpty());
}

}  // namespace
}  // namespace postern
