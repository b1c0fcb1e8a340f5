#include "proxy/live_connections.hpp"

#include <gtest/gtest.h>

#include <deque>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;
using test::ip;

struct Fake final : LiveConnection {
  explicit Fake(std::string_view peer, bool decided = true)
      : LiveConnection({Direction::inbound, ip(peer), Port{80}, nullptr}), decides(decided) {}
  void revoke(Reason reason) override {
    ++revoked;
    why = reason;
  }
  std::string describe() const override { return "{}"; }
  bool decided() const override { return decides; }
  bool decides;
  int revoked = 0;
  Reason why = Reason::finished;
};

class LiveConnectionsTest : public testing::Test {
 protected:
  LiveConnectionsTest() {
    cluster.ns("default");
    cluster.pod("default/api", "10.9.0.1", {{"app", "api"}});
    open = cluster.compile("default/api");
    cluster.policy("default/some", test::labelled({{"app", "api"}}))
        .ingress.push_back({.ports = {}, .peers = {test::block("192.0.2.0/25")}});
    some = cluster.compile("default/api");
  }
  // Turns until the policy is enforced.
  int enforce(std::shared_ptr<const PolicySnapshot> snapshot) {
    bool done = false;
    int turns = 0;
    live.recheck(std::move(snapshot), [&done] { done = true; });
    for (; !done && turns < 100; ++turns) loop.run_once(milliseconds(0));
    return turns;
  }

  DurationHistogram turn_durations;
  EventLoop loop{turn_durations};
  LiveConnections live{loop};
  test::ClusterBuilder cluster;
  std::shared_ptr<const PolicySnapshot> open, some;
};

TEST_F(LiveConnectionsTest, RevokesWhatIsNoLongerAllowedAndNothingElse) {
  Fake allowed("192.0.2.1"), denied("192.0.2.200"), own("192.0.2.201", false);
  for (Fake* each : {&allowed, &denied, &own}) live.add(*each);
  enforce(open);
  EXPECT_EQ(denied.revoked, 0);
  enforce(some);
  EXPECT_EQ(allowed.revoked, 0);
  EXPECT_EQ(denied.revoked, 1);
  EXPECT_EQ(denied.why, Reason::policy_changed);
  EXPECT_EQ(own.revoked, 0);
}

TEST_F(LiveConnectionsTest, ADeniedIdentityIsRevokedForThat) {
  Fake stranger("192.0.2.1"), denied("192.0.2.1");
  for (Fake* each : {&stranger, &denied}) live.add(*each);
  PeerIdentity identity;
  identity.id = SpiffeId::parse("spiffe://example.org/ns/default/sa/default/pod/gone/uid").value();
  identity.serial = "4B2F";
  denied.facts.identity = std::make_shared<const PeerIdentity>(identity);
  cluster.settings.denied.serials = {"4B2F"};
  enforce(cluster.compile("default/api"));
  EXPECT_EQ(stranger.revoked, 0);
  EXPECT_EQ(denied.why, Reason::identity_denied);
  EXPECT_EQ(denied.revoked, 1);
}

TEST_F(LiveConnectionsTest, WithoutConnectionsAPolicyIsEnforcedAtOnce) { EXPECT_EQ(enforce(some), 1); }

TEST_F(LiveConnectionsTest, ManyAreDecidedInSlices) {
  std::deque<Fake> many;
  for (int i = 0; i < 1000; ++i) live.add(many.emplace_back("192.0.2.200"));
  EXPECT_GE(enforce(some), 4);
  for (const Fake& each : many) EXPECT_EQ(each.revoked, 1);
}

TEST_F(LiveConnectionsTest, ALaterPolicyTakesOverAndAnswersForBoth) {
  std::deque<Fake> many;
  for (int i = 0; i < 1000; ++i) live.add(many.emplace_back("192.0.2.200"));
  std::vector<int> enforced;
  live.recheck(open, [&] { enforced.push_back(1); });
  loop.run_once(milliseconds(0));
  EXPECT_TRUE(enforced.empty());
  live.recheck(some, [&] { enforced.push_back(2); });
  for (int i = 0; i < 20; ++i) loop.run_once(milliseconds(0));
  EXPECT_EQ(enforced, (std::vector<int>{1, 2}));
  for (const Fake& each : many) EXPECT_EQ(each.revoked, 1);
}

TEST_F(LiveConnectionsTest, ConnectionsMayComeAndGoBetweenSlices) {
  std::deque<std::unique_ptr<Fake>> many;
  for (int i = 0; i < 1000; ++i) live.add(*many.emplace_back(std::make_unique<Fake>("192.0.2.200")));
  bool done = false;
  live.recheck(some, [&done] { done = true; });
  loop.run_once(milliseconds(0));
  many.erase(many.begin(), many.begin() + 500);
  Fake later("192.0.2.1");
  live.add(later);  // decided by the new policy already
  for (int i = 0; i < 20 && !done; ++i) loop.run_once(milliseconds(0));
  EXPECT_TRUE(done);
  for (const auto& each : many) EXPECT_EQ(each->revoked, 1);
  EXPECT_EQ(later.revoked, 0);
  many.clear();
}

TEST_F(LiveConnectionsTest, AtTheEndAllOfThem) {
  Fake one("192.0.2.1"), two("192.0.2.2", false);
  live.add(one);
  live.add(two);
  live.revoke_all(Reason::drained);
  EXPECT_EQ(one.why, Reason::drained);
  EXPECT_EQ(two.why, Reason::drained);
  int visited = 0;
  live.for_each([&](const LiveConnection&) { ++visited; });
  EXPECT_EQ(visited, 2);
}

}  // namespace
}  // namespace postern
