#include "control/cluster_store.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/control/cluster_feed.hpp"

namespace postern::test {
namespace {

using testing::ElementsAre;
using Type = WatchEvent::Type;

WatchEvent at_version(WatchEvent event, std::uint64_t version) {
  event.version = version;
  return event;
}

struct ClusterStoreTest : testing::Test {
  ClusterStoreTest() {
    cluster.ns("shop");
    web = cluster.pod("shop/web", "10.0.0.1", {{"app", "web"}});
  }
  ClusterBuilder cluster;
  Pod web;
  ClusterStore store;
  ClusterFeed feed{store};
};

TEST_F(ClusterStoreTest, IsSyncedOnceEveryKindWasListed) {
  for (const WatchedKind kind : watched_kinds) {
    EXPECT_FALSE(store.synced());
    feed.send(ClusterFeed::of_list(Type::relist_began, kind));
    EXPECT_FALSE(store.synced());
    feed.send(ClusterFeed::of_list(Type::relisted, kind));
  }
  EXPECT_TRUE(store.synced());
}

TEST_F(ClusterStoreTest, SaysWhatChangedOnce) {
  feed.list(cluster);
  EXPECT_THAT(store.take_changes().pods, ElementsAre(key("shop/web")));
  EXPECT_TRUE(store.take_changes().empty());
  web.labels["app"] = "api";
  feed.apply(web);
  const Changes changes = store.take_changes();
  EXPECT_THAT(changes.pods, ElementsAre(key("shop/web")));
  EXPECT_TRUE(changes.namespaces.empty());
  EXPECT_EQ(store.view().pods.at(key("shop/web")), web);
}

TEST_F(ClusterStoreTest, AnEventThatChangesNothingLeavesOnlyItsVersion) {
  feed.list(cluster);
  store.take_changes();
  feed.apply(web);
  EXPECT_TRUE(store.take_changes().empty());
  EXPECT_EQ(store.mark().versions.at("pods"), feed.version());
}

TEST_F(ClusterStoreTest, ARelistDeletesWhatIsGoneOfThatKindOnly) {
  cluster.pod("shop/db", "10.0.0.2");
  feed.list(cluster);
  store.take_changes();
  cluster.view.pods.erase(key("shop/web"));
  feed.list_kind(cluster.view.pods);
  EXPECT_THAT(store.take_changes().pods, ElementsAre(key("shop/web")));
  EXPECT_EQ(store.view(), cluster.view);
  EXPECT_EQ(store.mark().versions.at("pods"), feed.version()) << "the deletion is as old as the list at the latest";
}

TEST_F(ClusterStoreTest, ARelistThatBreaksOffDeletesNothing) {
  feed.list(cluster);
  store.take_changes();
  feed.send(ClusterFeed::of_list(Type::relist_began, WatchedKind::pods));
  feed.send(ClusterFeed::of_list(Type::relist_began, WatchedKind::pods));
  feed.apply(web);
  feed.send(ClusterFeed::of_list(Type::relisted, WatchedKind::pods));
  EXPECT_TRUE(store.take_changes().empty());
  EXPECT_TRUE(store.view().pods.contains(key("shop/web")));
}

TEST_F(ClusterStoreTest, ADeletionDuringARelistStands) {
  feed.list(cluster);
  feed.send(ClusterFeed::of_list(Type::relist_began, WatchedKind::pods));
  feed.apply(web);
  feed.erase(web);
  feed.send(ClusterFeed::of_list(Type::relisted, WatchedKind::pods));
  EXPECT_TRUE(store.view().pods.empty());
}

TEST_F(ClusterStoreTest, HasSeenOnlyWhatIsComplete) {
  feed.list(cluster);
  const Mark now = store.mark();
  Mark later = now;
  later.versions["pods"] = 1'000;
  EXPECT_TRUE(store.has_seen(now));
  EXPECT_FALSE(store.has_seen(later));

  store.apply(at_version(ClusterFeed::of_list(Type::relist_began, WatchedKind::pods), 0));
  store.apply(at_version(ClusterFeed::applied(web), 1'500));
  EXPECT_FALSE(store.has_seen(later)) << "the rest of the list may hold older changes that are not here yet";
  store.apply(at_version(ClusterFeed::of_list(Type::relisted, WatchedKind::pods), 2'000));
  EXPECT_TRUE(store.has_seen(later));
}

// Two replicas: one that started after a policy had been deleted, and one whose watch has not told of the deletion.
TEST_F(ClusterStoreTest, TheMarkCoversWhatWasDeletedBeforeTheFirstList) {
  const NetworkPolicy policy = cluster.policy("shop/open", {});
  feed.list(cluster);
  store.apply(at_version(ClusterFeed::of_list(Type::bookmark, WatchedKind::network_policies), 400));
  ASSERT_TRUE(store.view().policies.contains(key("shop/open")));

  ClusterStore late;
  for (const WatchedKind kind : watched_kinds) {
    late.apply(at_version(ClusterFeed::of_list(Type::relist_began, kind), 500));
    late.apply(at_version(ClusterFeed::of_list(Type::relisted, kind), 500));
  }
  EXPECT_FALSE(store.has_seen(late.mark())) << "it would bring the deleted policy back";
  for (const WatchedKind kind : watched_kinds) EXPECT_EQ(late.mark().versions.at(std::string(name_of(kind))), 500U);

  store.apply(at_version(ClusterFeed::deleted(policy), 450));
  for (const WatchedKind kind : watched_kinds) store.apply(at_version(ClusterFeed::of_list(Type::bookmark, kind), 500));
  EXPECT_TRUE(store.has_seen(late.mark()));
}

TEST_F(ClusterStoreTest, NamesTheKindsThatAreBehind) {
  feed.list(cluster);
  Mark later = store.mark();
  later.versions["pods"] = 900;
  later.versions["nodes"] = 901;
  later.versions["surprises"] = 902;
  EXPECT_THAT(store.unseen(later), ElementsAre(testing::Pair(WatchedKind::pods, 900), testing::Pair(WatchedKind::nodes, 901)));
  later.epoch = "another";
  EXPECT_TRUE(store.unseen(later).empty());
}

TEST_F(ClusterStoreTest, ABookmarkIsSeenAndNoMark) {
  feed.list(cluster);
  Mark later = store.mark();
  later.versions["pods"] = 900;
  store.apply(at_version(ClusterFeed::of_list(Type::bookmark, WatchedKind::pods), 900));
  EXPECT_TRUE(store.has_seen(later));
  EXPECT_LT(store.mark().versions.at("pods"), 900U);
}

TEST_F(ClusterStoreTest, AnotherEpochIsAnotherHistory) {
  store.set_store_uid("a");
  feed.list(cluster);
  Mark other = store.mark();
  other.versions["pods"] = 1'000'000;
  EXPECT_FALSE(store.has_seen(other));
  feed.apply(MeshConfig{.settings = cluster.settings, .epoch = "restored"});
  EXPECT_EQ(store.mark().epoch, "a/restored");
  EXPECT_TRUE(store.has_seen(other));
  EXPECT_TRUE(store.take_changes().namespaces.contains("shop"));
  EXPECT_FALSE(store.take_changes().settings);
}

TEST_F(ClusterStoreTest, WithoutAConfigMapTheDefaultsHold) {
  MeshConfig defaults{.settings = cluster.settings, .epoch = {}};
  ClusterStore with_defaults(defaults);
  ClusterFeed to_it(with_defaults);
  EXPECT_EQ(with_defaults.mesh(), defaults);
  MeshConfig denying = defaults;
  denying.settings.default_policy = DefaultPolicy::deny;
  to_it.apply(denying);
  EXPECT_EQ(with_defaults.mesh(), denying);
  EXPECT_TRUE(with_defaults.take_changes().settings);
  to_it.erase(denying);
  EXPECT_EQ(with_defaults.mesh(), defaults);
  to_it.apply(denying);
  to_it.list_kind(std::map<int, MeshConfig>{});
  EXPECT_EQ(with_defaults.mesh(), defaults);
}

TEST_F(ClusterStoreTest, ASliceChangesItsService) {
  feed.list(cluster);
  store.take_changes();
  EndpointSlice slice{.ns = "shop", .name = "web-x", .service = "web", .ports = {}, .endpoints = {}};
  feed.apply(slice);
  EXPECT_THAT(store.take_changes().services, ElementsAre(key("shop/web")));
  EXPECT_EQ(store.slices_of(key("shop/web")).size(), 1U);

  slice.service = "api";
  feed.apply(slice);
  EXPECT_THAT(store.take_changes().services, ElementsAre(key("shop/api"), key("shop/web")));
  EXPECT_TRUE(store.slices_of(key("shop/web")).empty());

  feed.erase(slice);
  EXPECT_THAT(store.take_changes().services, ElementsAre(key("shop/api")));
  EXPECT_TRUE(store.slices_of(key("shop/api")).empty());
  EXPECT_TRUE(store.view().endpoint_slices.empty());
}

TEST_F(ClusterStoreTest, ForgetsEveryKind) {
  cluster.policy("shop/p");
  cluster.service("shop/web", "10.96.0.1", {}, {});
  cluster.view.nodes["n"] = {.name = "n", .addresses = {ip("192.168.0.1")}, .pod_cidrs = {}};
  cluster.view.endpoint_slices[key("shop/s")] = {.ns = "shop", .name = "s", .service = "web", .ports = {}, .endpoints = {}};
  feed.list(cluster);
  EXPECT_EQ(store.view(), cluster.view);
  store.take_changes();
  feed.list(ClusterView{}, cluster.settings);
  EXPECT_EQ(store.view(), ClusterView{});
  const Changes changes = store.take_changes();
  EXPECT_EQ(changes.pods.size() + changes.namespaces.size() + changes.policies.size() + changes.services.size() + changes.nodes.size(), 5U);
}

}  // namespace
}  // namespace postern::test
