#include "control/policy_stream.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "control/resource_hash.hpp"
#include "tests/unit/control/cluster_feed.hpp"

namespace postern::test {
namespace {

using namespace std::chrono_literals;
using testing::Contains;
using testing::HasSubstr;
using testing::IsEmpty;
using Kind = PolicyStream::End::Kind;

const TrustDomain domain = TrustDomain::parse("example.org").value();

SpiffeId id_of(std::string_view path) { return SpiffeId::parse("spiffe://example.org" + std::string(path)).value(); }

TEST(StreamOwner, IsThePodThatTheSvidNames) {
  const auto owner = stream_owner(id_of("/ns/shop/sa/web/pod/web-0/u1"), domain);
  ASSERT_TRUE(owner);
  EXPECT_EQ(owner->key.text(), "shop/web-0");
  EXPECT_EQ(owner->uid, "u1");
  EXPECT_EQ(owner->service_account, "web");
}

TEST(StreamOwner, IsNoServiceAccountNorAnotherTrustDomain) {
  EXPECT_FALSE(stream_owner(id_of("/ns/shop/sa/web"), domain));
  EXPECT_FALSE(stream_owner(id_of("/ns/shop/sa/web/pod/web-0"), domain));
  EXPECT_FALSE(stream_owner(id_of("/postern/control"), domain));
  EXPECT_FALSE(stream_owner(SpiffeId::parse("spiffe://other.org/ns/shop/sa/web/pod/web-0/u1").value(), domain));
}

// web-0 is selected by a policy that admits its clients.
struct PolicyStreamTest : testing::Test {
  PolicyStreamTest() {
    c.ns("shop", {});
    Pod& web = c.pod("shop/web-0", "10.0.0.1", {{"app", "web"}});
    web.workload.uid = "u1";
    web.workload.service_account = "web";
    c.pod("shop/client", "10.0.0.2", {{"app", "client"}});
    c.pod("shop/other", "10.0.0.9", {{"app", "other"}});
    c.policy("shop/web", labelled({{"app", "web"}})).ingress = {{.ports = {on(80)}, .peers = {pods(labelled({{"app", "client"}}))}}};
    store.set_store_uid("cluster");
  }

  void list() {
    feed.list(c);
    flush();
  }
  void flush() {
    publisher.flush();
    mark = store.mark();
    for (PolicyStream* stream : streams) stream->proceed(now);
  }

  // The messages that are due, decoded.
  static std::vector<ControlMessage> due(PolicyStream& stream) {
    std::vector<ControlMessage> out;
    while (const auto text = stream.next_message()) out.push_back(decode_control_message(*text).value());
    return out;
  }
  void say(PolicyStream& stream, const SidecarMessage& message) { stream.receive(encode(message), now); }
  static Update update_of(const std::vector<ControlMessage>& messages) {
    for (const ControlMessage& message : messages) {
      if (const auto* update = std::get_if<Update>(&message)) return *update;
    }
    ADD_FAILURE() << "no update among " << messages.size();
    return {};
  }
  static std::set<std::string> names_of(const Update& update) {
    std::set<std::string> names;
    for (const ResourcePtr& resource : update.resources) names.insert(resource->name);
    return names;
  }
  // Hello, and the first update acknowledged.
  Update begin(PolicyStream& stream, Hello hello = {}) {
    say(stream, hello);
    Update first = update_of(due(stream));
    say(stream, Ack{first.nonce});
    return first;
  }
  void relabel_client(const std::string& app) {
    Pod& client = c.view.pods.at(key("shop/client"));
    client.labels = {{"app", app}};
    feed.apply(client);
    flush();
  }

  ClusterBuilder c;
  ClusterStore store;
  ClusterFeed feed{store};
  Publisher publisher{store};
  Mark mark;
  PolicyStream::Clock::time_point now{};
  std::vector<PolicyStream*> streams;
  StreamContext context{store, publisher, {10, 3}, [this] { flush(); }, [this]() -> const Mark& { return mark; }, {}};
  const StreamOwner owner{key("shop/web-0"), "u1", "web"};
};

struct OneStream : PolicyStreamTest {
  OneStream() { streams.push_back(&stream); }
  PolicyStream stream{owner, context, [this] { ++woken; }, now};
  int woken = 0;
};

TEST_F(OneStream, WaitsUntilTheClusterIsRead) {
  say(stream, Hello{});
  const auto messages = due(stream);
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_THAT(std::get<NotReady>(messages[0]).reason, HasSubstr("not read the cluster"));
  list();
  EXPECT_THAT(names_of(update_of(due(stream))), Contains("allow-list"));
  EXPECT_TRUE(stream.serving());
}

TEST_F(OneStream, WaitsUntilItHasSeenWhatTheSidecarHas) {
  list();
  Hello hello;
  hello.mark = store.mark();
  hello.mark.versions["pods"] += 1000;
  say(stream, hello);
  EXPECT_THAT(std::get<NotReady>(due(stream).at(0)).reason, HasSubstr("not seen yet"));
  flush();
  EXPECT_THAT(due(stream), IsEmpty());  // said once
  WatchEvent bookmark = ClusterFeed::of_list(WatchEvent::Type::bookmark, WatchedKind::pods);
  bookmark.version = hello.mark.versions["pods"];
  store.apply(bookmark);
  flush();
  const Update update = update_of(due(stream));
  EXPECT_TRUE(update.mark.reaches(hello.mark));
}

TEST_F(OneStream, WhatItWaitsForIsAskedForWhileItWaits) {
  std::vector<std::uint64_t> wanted;
  context.behind = [&](const Mark& behind) { wanted.push_back(behind.versions.at("pods")); };
  list();
  Hello hello;
  hello.mark = store.mark();
  hello.mark.versions["pods"] = 1000;
  say(stream, hello);
  flush();
  EXPECT_GE(wanted.size(), 2U) << "again and again";
  EXPECT_THAT(wanted, testing::Each(1000U));
  wanted.clear();
  WatchEvent bookmark = ClusterFeed::of_list(WatchEvent::Type::bookmark, WatchedKind::pods);
  bookmark.version = 1000;
  store.apply(bookmark);
  flush();
  flush();
  EXPECT_THAT(wanted, IsEmpty());
}

TEST_F(OneStream, AnotherEpochIsNotWaitedFor) {
  list();
  Hello hello;
  hello.mark.epoch = "another";
  hello.mark.versions["pods"] = 1U << 30;
  say(stream, hello);
  EXPECT_EQ(update_of(due(stream)).mark, store.mark());
}

// What the store has seen but not compiled must not be passed over: the mark would say that it is in the update.
TEST_F(OneStream, EventsThatAreNotFlushedYetAreInTheFirstUpdate) {
  list();
  Pod& client = c.view.pods.at(key("shop/client"));
  client.labels = {{"app", "other"}};
  feed.apply(client);
  Hello hello;
  hello.mark = store.mark();
  say(stream, hello);
  EXPECT_EQ(names_of(update_of(due(stream))).count("pod/shop/client"), 0U);
}

TEST_F(OneStream, UnchangedResourcesAreNotSentAgain) {
  list();
  const Update first = begin(stream);
  Hello again;
  for (const ResourcePtr& resource : first.resources) again.have[resource->name] = resource->hash;
  again.mark = first.mark;
  PolicyStream next{owner, context, [] {}, now};
  say(next, again);
  const Update update = update_of(due(next));  // empty, but there: its ACK says that what the sidecar has is right
  EXPECT_THAT(update.resources, IsEmpty());
  EXPECT_THAT(update.removed, IsEmpty());
}

TEST_F(OneStream, BundlesOfOtherTrustDomainsComeAndGoWithoutTheCluster) {
  list();
  const auto bundle = [](const std::string& domain, std::uint64_t sequence) {
    const std::string name = federated_bundle_resource_name(domain);
    return std::pair(name, make_resource(name, encode(FederatedBundleRecord{sequence, "roots"})));
  };
  context.federated_bundles = {bundle("partner.example", 1)};
  EXPECT_THAT(names_of(begin(stream)), Contains("federated-bundle/partner.example"));
  context.federated_bundles = {bundle("partner.example", 2), bundle("new.example", 1)};
  stream.trust_bundle_changed();
  const Update changed = update_of(due(stream));
  EXPECT_EQ(names_of(changed), (std::set<std::string>{"federated-bundle/new.example", "federated-bundle/partner.example"}));
  EXPECT_THAT(changed.removed, IsEmpty());
  say(stream, Ack{changed.nonce});
  context.federated_bundles.erase("federated-bundle/partner.example");
  stream.trust_bundle_changed();
  const Update removed = update_of(due(stream));
  EXPECT_THAT(removed.resources, IsEmpty());
  EXPECT_THAT(removed.removed, testing::ElementsAre("federated-bundle/partner.example"));
  say(stream, Ack{removed.nonce});
  stream.trust_bundle_changed();
  EXPECT_THAT(due(stream), IsEmpty());
}

// A replica that has just started must not take away what another one has sent.
TEST_F(OneStream, ABundleThatIsNotKnownHereYetStaysWithTheSidecar) {
  list();
  context.federated_bundles = {{"federated-bundle/partner.example", nullptr}};
  Hello hello;
  hello.have = {{"federated-bundle/partner.example", "h"}, {"federated-bundle/former.example", "h"}};
  const Update first = begin(stream, hello);
  EXPECT_EQ(names_of(first).count("federated-bundle/partner.example"), 0U);
  EXPECT_THAT(first.removed, testing::ElementsAre("federated-bundle/former.example"));
}

TEST_F(OneStream, OneUpdateIsUnderWayAndTheNewestStateFollows) {
  list();
  say(stream, Hello{});
  const Update first = update_of(due(stream));
  relabel_client("nobody");
  relabel_client("client");
  relabel_client("nobody");
  EXPECT_THAT(due(stream), IsEmpty());
  EXPECT_TRUE(stream.outstanding());
  say(stream, Ack{first.nonce});
  const Update second = update_of(due(stream));
  EXPECT_EQ(second.nonce, first.nonce + 1);
  EXPECT_THAT(second.removed, Contains("pod/shop/client"));
  say(stream, Ack{second.nonce});
  EXPECT_THAT(due(stream), IsEmpty());
  EXPECT_FALSE(stream.acknowledged().contains("pod/shop/client"));
}

TEST_F(OneStream, ItIsBehindFromTheUpdateToItsAcknowledgement) {
  list();
  say(stream, Hello{});
  const Update first = update_of(due(stream));
  const auto since = stream.behind_since();
  ASSERT_TRUE(since);
  relabel_client("nobody");
  EXPECT_EQ(stream.behind_since(), since);
  say(stream, Ack{first.nonce});
  EXPECT_TRUE(stream.behind_since()) << "of what changed meanwhile";
  say(stream, Ack{update_of(due(stream)).nonce});
  EXPECT_FALSE(stream.behind_since());
}

TEST_F(OneStream, ARefusedUpdateIsSentAgainWithTheNextChangeOnly) {
  list();
  say(stream, Hello{});
  const Update first = update_of(due(stream));
  say(stream, Nack{first.nonce, "peer set too large"});
  EXPECT_EQ(stream.refusal(), "peer set too large");
  EXPECT_TRUE(stream.behind_since());
  EXPECT_THAT(due(stream), IsEmpty());
  EXPECT_TRUE(stream.acknowledged().empty());
  relabel_client("nobody");
  const Update second = update_of(due(stream));
  EXPECT_THAT(names_of(second), Contains("allow-list"));
  say(stream, Ack{second.nonce});
  EXPECT_EQ(stream.refusal(), "");
  EXPECT_FALSE(stream.behind_since());
  EXPECT_TRUE(stream.acknowledged().contains("allow-list"));
  EXPECT_EQ(context.counters.nacks, 1U);
}

// The policy admits 300 more clients: one of them more or less is an edit.
struct LargeSetStream : OneStream {
  LargeSetStream() {
    for (int i = 0; i < 300; ++i)
      c.pod(client(i), "10.1." + std::to_string(i / 100) + "." + std::to_string(i % 100 + 1), {{"app", "client"}});
    list();
  }
  static std::string client(int i) { return "shop/client-" + std::to_string(1000 + i); }
  void relabel(int i, const std::string& app) {
    Pod& pod = c.view.pods.at(key(client(i)));
    pod.labels = {{"app", app}};
    feed.apply(pod);
    flush();
  }
};

TEST_F(LargeSetStream, OneMemberIsASmallMessage) {
  begin(stream);
  relabel(7, "other");
  const auto text = stream.next_message();
  ASSERT_TRUE(text);
  EXPECT_LT(text->size(), 1000U);
  const Update update = update_of({decode_control_message(*text).value()});
  EXPECT_THAT(update.resources, IsEmpty());
  ASSERT_EQ(update.deltas.size(), 1U);
  EXPECT_EQ(stream.acknowledged().hash_of(update.deltas[0].name), update.deltas[0].base);
  say(stream, Ack{update.nonce});
  EXPECT_EQ(stream.acknowledged().hash_of(update.deltas[0].name), update.deltas[0].hash);
  EXPECT_EQ(context.counters.deltas, 1U);
}

TEST_F(LargeSetStream, ASlowSidecarSkipsVersions) {
  begin(stream);
  relabel(7, "other");
  const Update first = update_of(due(stream));
  relabel(8, "other");
  relabel(9, "other");
  relabel(7, "client");
  EXPECT_THAT(due(stream), IsEmpty()) << "one update is under way";
  say(stream, Ack{first.nonce});
  const Update second = update_of(due(stream));
  ASSERT_EQ(second.deltas.size(), 1U);
  EXPECT_EQ(second.deltas[0].base, first.deltas.at(0).hash);
}

TEST_F(LargeSetStream, RefusedEditsAreSentWholeAtOnce) {
  begin(stream);
  relabel(7, "other");
  const Update edits = update_of(due(stream));
  ASSERT_EQ(edits.deltas.size(), 1U);
  say(stream, Nack{edits.nonce, "edits to something else"});
  const Update whole = update_of(due(stream));
  EXPECT_THAT(whole.deltas, IsEmpty());
  EXPECT_THAT(names_of(whole), Contains(edits.deltas[0].name));
  EXPECT_EQ(whole.removed, edits.removed);
  // Nor is it tried again on this stream, and what is refused whole waits for the next change as ever.
  say(stream, Nack{whole.nonce, "no"});
  EXPECT_THAT(due(stream), IsEmpty());
  relabel(8, "other");
  const Update next = update_of(due(stream));
  EXPECT_THAT(next.deltas, IsEmpty());
}

TEST_F(LargeSetStream, ASidecarThatHoldsAnUnknownVersionGetsTheWhole) {
  Hello hello;
  hello.mark = store.mark();
  {
    PolicyStream other(
        owner, context, [] {}, now);
    say(other, Hello{});
    for (const ResourcePtr& resource : update_of(due(other)).resources) hello.have[resource->name] = resource->hash;
  }
  for (auto& [name, hash] : hello.have) {
    if (name.starts_with("peer-set/")) hash = std::string(32, '0');
  }
  say(stream, hello);
  const Update update = update_of(due(stream));
  EXPECT_THAT(update.deltas, IsEmpty());
  ASSERT_EQ(update.resources.size(), 1U);
}

TEST_F(OneStream, ANonceThatIsNotUnderWayEndsTheStream) {
  list();
  const Update first = begin(stream);
  say(stream, Ack{first.nonce});
  ASSERT_TRUE(stream.ended());
  EXPECT_EQ(stream.ended()->kind, Kind::malformed);
}

TEST_F(OneStream, WhatIsNoMessageEndsTheStream) {
  for (const char* text : {"", "{", "[]", "{\"type\":\"ack\",\"nonce\":1}", "{\"type\":\"nonsense\"}"}) {
    PolicyStream fresh{owner, context, [] {}, now};
    fresh.receive(text, now);
    ASSERT_TRUE(fresh.ended()) << text;
    EXPECT_EQ(fresh.ended()->kind, Kind::malformed);
    EXPECT_FALSE(fresh.next_message());
  }
  list();
  begin(stream);
  say(stream, Hello{});
  EXPECT_TRUE(stream.ended());
}

TEST_F(OneStream, APodOfAnotherServiceAccountIsRefused) {
  list();
  PolicyStream other{{key("shop/web-0"), "u1", "admin"}, context, [] {}, now};
  say(other, Hello{});
  ASSERT_TRUE(other.ended());
  EXPECT_EQ(other.ended()->kind, Kind::refused);
}

TEST_F(OneStream, APodThatIsNotThereYetIsWaitedForAWhile) {
  list();
  PolicyStream yesterday{{key("shop/web-0"), "u0", "web"}, context, [] {}, now};
  say(yesterday, Hello{});
  EXPECT_THAT(std::get<NotReady>(due(yesterday).at(0)).reason, HasSubstr("no pod shop/web-0"));
  yesterday.proceed(now + 29s);
  EXPECT_FALSE(yesterday.ended());
  yesterday.proceed(now + 31s);
  ASSERT_TRUE(yesterday.ended());
  EXPECT_EQ(yesterday.ended()->kind, Kind::try_later);
}

TEST_F(OneStream, EndsWithItsPod) {
  list();
  begin(stream);
  feed.erase(c.view.pods.at(key("shop/web-0")));
  flush();
  ASSERT_TRUE(stream.ended());
  EXPECT_EQ(stream.ended()->kind, Kind::gone);
}

TEST_F(OneStream, ALookedUpPodComesBeforeItsAnswer) {
  list();
  begin(stream);
  say(stream, Lookup{7, ip("10.0.0.9")});
  const auto messages = due(stream);
  ASSERT_EQ(messages.size(), 2U);
  EXPECT_THAT(names_of(std::get<Update>(messages[0])), Contains("pod/shop/other"));
  EXPECT_EQ(std::get<LookupAnswer>(messages[1]).id, 7U);
  EXPECT_TRUE(std::get<LookupAnswer>(messages[1]).known);
}

TEST_F(OneStream, AnAnswerWaitsForTheUpdateThatIsUnderWay) {
  list();
  say(stream, Hello{});
  const Update first = update_of(due(stream));
  say(stream, Lookup{7, ip("10.0.0.9")});
  EXPECT_THAT(due(stream), IsEmpty());
  say(stream, Ack{first.nonce});
  EXPECT_EQ(due(stream).size(), 2U);
}

TEST_F(OneStream, NobodysAddressIsAnsweredAtOnce) {
  list();
  begin(stream);
  say(stream, Lookup{8, ip("10.0.0.77")});
  const auto messages = due(stream);
  ASSERT_EQ(messages.size(), 1U);
  EXPECT_FALSE(std::get<LookupAnswer>(messages[0]).known);
  EXPECT_EQ(std::get<LookupAnswer>(messages[0]).error, "");
}

TEST_F(OneStream, ForgottenResourcesAreRemoved) {
  list();
  begin(stream);
  say(stream, Lookup{7, ip("10.0.0.9")});
  const Update found = update_of(due(stream));
  say(stream, Ack{found.nonce});
  say(stream, Forget{{"pod/shop/other", "pod/shop/client", "pod/no/body"}});
  const Update update = update_of(due(stream));
  EXPECT_THAT(update.removed, testing::ElementsAre("pod/shop/other"));  // the client is in a peer set
}

TEST_F(OneStream, LookUpsAreLimited) {
  list();
  begin(stream);
  const auto limited = [&](std::uint64_t id) {
    say(stream, Lookup{id, ip("10.0.0.77")});
    return !std::get<LookupAnswer>(due(stream).at(0)).error.empty();
  };
  EXPECT_FALSE(limited(1));
  EXPECT_FALSE(limited(2));
  EXPECT_FALSE(limited(3));
  EXPECT_TRUE(limited(4));
  now += 100ms;  // ten a second
  EXPECT_FALSE(limited(5));
  EXPECT_TRUE(limited(6));
  EXPECT_EQ(context.counters.lookups_limited, 2U);
}

}  // namespace
}  // namespace postern::test
