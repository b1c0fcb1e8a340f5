// The publisher depends on the current state, never on the order of events: every sequence is also run reversed, shuffled, split over
// flushes, squashed into one, and with empty flushes between.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "authz/explain.hpp"
#include "authz/snapshot_parts.hpp"
#include "authz/stream_messages.hpp"
#include "control/publisher.hpp"
#include "tests/unit/authz/random_cluster.hpp"
#include "tests/unit/control/cluster_feed.hpp"

namespace postern::test {
namespace {

enum class Order : std::uint8_t { straight, reversed, shuffled };
enum class Flushing : std::uint8_t { each, some, once, each_and_empty };

// One state of the cluster with Services, EndpointSlices and nodes besides what RandomCluster makes.
struct State {
  ClusterView view;
  MeshConfig mesh;
};

State random_state(std::uint32_t seed) {
  RandomCluster random(seed);
  State state{.view = random.c.view, .mesh = {.settings = random.c.settings, .epoch = {}}};
  ClusterView& view = state.view;
  for (auto& [key, pod] : view.pods) {
    if (random.below(8) == 0) pod.workload.uid += "-again";
    if (random.below(6) == 0) pod.terminating = true;
    if (random.below(6) == 0) pod.mtls = MtlsMode::permissive;
    pod.node_name = "node-" + std::to_string(random.below(3));
  }
  for (auto& [name, ns] : view.namespaces) {
    if (random.below(4) == 0) ns.mtls = MtlsMode::permissive;
  }
  if (random.below(3) == 0) view.namespaces.erase(view.namespaces.begin());  // its pods may be seen before it
  for (std::uint32_t i = 0; i < 3; ++i) {
    if (random.below(4) == 0) continue;
    const std::string name = "node-" + std::to_string(i);
    view.nodes[name] = {.name = name, .addresses = {ip("192.168.0." + std::to_string(1 + random.below(3)))}, .pod_cidrs = {}};
  }
  for (std::uint32_t i = 0; i < 4; ++i) {
    if (random.below(4) == 0) continue;
    Service service;
    service.ns = "ns-" + std::to_string(random.below(3));
    service.name = "service-" + std::to_string(i);
    service.selector = {{"app", "a"}};
    if (random.below(5) != 0) service.cluster_ips = {ip("10.96.0." + std::to_string(i + 1))};
    service.ports = {{.name = "http", .port = Port{80}, .target = {}, .node_port = {}}};
    if (random.below(3) == 0) service.ports[0].node_port = Port{static_cast<std::uint16_t>(30'000 + i)};
    if (random.below(3) != 0) {
      EndpointSlice slice{.ns = service.ns,
                          .name = service.name + "-x",
                          .service = service.name,
                          .ports = {{.name = "http", .port = Port{8080}}},
                          .endpoints = {}};
      for (const auto& [key, pod] : view.pods) {
        if (random.below(3) != 0) continue;
        SliceEndpoint endpoint;
        endpoint.addresses = {pod.workload.addresses.front()};
        endpoint.ready = random.below(4) != 0;
        endpoint.pod = key;
        slice.endpoints.push_back(std::move(endpoint));
      }
      view.endpoint_slices[{slice.ns, slice.name}] = slice;
    }
    view.services[{service.ns, service.name}] = service;
  }
  return state;
}

// The events of one object, in the only order they can come in.
using History = std::vector<WatchEvent>;

template <class Key, class T>
void add_histories(std::vector<History>& histories, const std::vector<const std::map<Key, T>*>& states) {
  std::map<Key, History> by_key;
  for (std::size_t i = 1; i < states.size(); ++i) {
    for (const auto& [key, object] : *states[i]) {
      const auto before = states[i - 1]->find(key);
      if (before == states[i - 1]->end() || !(before->second == object)) by_key[key].push_back(ClusterFeed::applied(object));
    }
    for (const auto& [key, object] : *states[i - 1]) {
      if (!states[i]->contains(key)) by_key[key].push_back(ClusterFeed::deleted(object));
    }
  }
  for (auto& [key, history] : by_key) histories.push_back(std::move(history));
}

std::vector<History> histories_of(const std::vector<State>& states) {
  std::vector<History> histories;
  const auto add = [&](auto member) {
    std::vector<const std::remove_reference_t<decltype(states[0].view.*member)>*> of_kind;
    for (const State& state : states) of_kind.push_back(&(state.view.*member));
    add_histories(histories, of_kind);
  };
  add(&ClusterView::pods);
  add(&ClusterView::namespaces);
  add(&ClusterView::policies);
  add(&ClusterView::services);
  add(&ClusterView::endpoint_slices);
  add(&ClusterView::nodes);
  History mesh;
  for (std::size_t i = 1; i < states.size(); ++i) mesh.push_back(ClusterFeed::applied(states[i].mesh));
  histories.push_back(std::move(mesh));
  return histories;
}

std::vector<WatchEvent> in_order(std::vector<History> histories, Order order, std::mt19937& random) {
  std::vector<WatchEvent> events;
  if (order == Order::reversed) std::reverse(histories.begin(), histories.end());
  if (order != Order::shuffled) {
    for (const History& history : histories) events.insert(events.end(), history.begin(), history.end());
    return events;
  }
  std::vector<std::size_t> turns;
  for (std::size_t i = 0; i < histories.size(); ++i) turns.insert(turns.end(), histories[i].size(), i);
  std::shuffle(turns.begin(), turns.end(), random);
  std::vector<std::size_t> next(histories.size());
  for (const std::size_t i : turns) events.push_back(histories[i][next[i]++]);
  return events;
}

// A publisher, everybody's subscription, and whether each always said so when it had something.
class Rehearsal {
 public:
  Rehearsal(const State& start, std::uint32_t seed) : random_(seed) {
    feed_.list(start.view, start.mesh.settings);
    flush();
  }

  void play(const std::vector<WatchEvent>& events, Flushing flushing) {
    for (const WatchEvent& event : events) {
      feed_.send(event);
      if (flushing == Flushing::each || flushing == Flushing::each_and_empty || (flushing == Flushing::some && random_() % 4 == 0)) flush();
      if (flushing == Flushing::each_and_empty) flush();
    }
    flush();
  }

  void flush() {
    publisher_.flush();
    for (auto it = receivers_.begin(); it != receivers_.end();) {
      Receiver& receiver = *it->second;
      if (receiver.told()) {
        behind_.insert(it->first);
      } else if (!behind_.contains(it->first)) {
        EXPECT_EQ(receiver.take_all(), 0U) << "it was not told of a change";
      }
      if (random_() % 2 == 0) {  // a slow one takes more at once
        receiver.take();
        behind_.erase(it->first);
      }
      if (receiver.gone()) {
        behind_.erase(it->first);
        it = receivers_.erase(it);
      } else {
        ++it;
      }
    }
    for (const auto& [key, pod] : store_.view().pods) {
      if (pod.ended() || receivers_.contains(key)) continue;
      receivers_.emplace(key, std::make_unique<Receiver>(publisher_, key, pod.workload.uid));
    }
  }

  void take_everything() {
    for (auto& [key, receiver] : receivers_) receiver->take();
  }

  const ClusterStore& store() const { return store_; }
  Publisher& publisher() { return publisher_; }
  std::map<WorkloadKey, std::unique_ptr<Receiver>>& receivers() { return receivers_; }

 private:
  std::mt19937 random_;
  ClusterStore store_;
  ClusterFeed feed_{store_};
  Publisher publisher_{store_};
  std::map<WorkloadKey, std::unique_ptr<Receiver>> receivers_;
  std::set<WorkloadKey> behind_;  // those that have been told and have not taken it yet
};

void expect_equal(Rehearsal& run, Rehearsal& fresh, const std::string& what) {
  run.take_everything();
  ASSERT_EQ(run.store().view(), fresh.store().view()) << what;
  ASSERT_EQ(run.receivers().size(), fresh.receivers().size()) << what;
  for (const auto& [key, receiver] : fresh.receivers()) {
    const auto found = run.receivers().find(key);
    ASSERT_NE(found, run.receivers().end()) << what << " " << key.text();
    ASSERT_EQ(found->second->held(), receiver->held()) << what << " " << key.text();
  }
  EXPECT_EQ(run.publisher().stats().peer_sets, fresh.publisher().stats().peer_sets) << what;
  EXPECT_EQ(run.publisher().stats().allow_lists, fresh.publisher().stats().allow_lists) << what;
}

TEST(PublisherOrder, DoesNotMatter) {
  std::size_t resources = 0;
  for (std::uint32_t seed = 0; seed < 60; ++seed) {
    const std::vector<State> states{random_state(3 * seed), random_state(3 * seed + 1), random_state(3 * seed + 2)};
    Rehearsal fresh(states.back(), seed);
    for (const auto& [key, receiver] : fresh.receivers()) resources += receiver->held().size();
    for (const Order order : {Order::straight, Order::reversed, Order::shuffled}) {
      for (const Flushing flushing : {Flushing::each, Flushing::some, Flushing::once, Flushing::each_and_empty}) {
        std::mt19937 random(seed);
        Rehearsal run(states.front(), seed);
        run.play(in_order(histories_of(states), order, random), flushing);
        expect_equal(run, fresh,
                     "seed " + std::to_string(seed) + " order " + std::to_string(static_cast<int>(order)) + " flushing " +
                         std::to_string(static_cast<int>(flushing)));
        if (testing::Test::HasFailure()) return;
      }
    }
  }
  EXPECT_GT(resources, 2'000U);
}

TEST(PublisherOrder, ARelistIsAsGoodAsTheEventsItStandsFor) {
  for (std::uint32_t seed = 500; seed < 540; ++seed) {
    const State before = random_state(seed);
    const State after = random_state(seed + 1);
    Rehearsal fresh(after, seed);
    ClusterStore store;
    ClusterFeed feed(store);
    Publisher publisher(store);
    feed.list(before.view, before.mesh.settings);
    publisher.flush();
    std::map<WorkloadKey, std::unique_ptr<Receiver>> receivers;
    for (const auto& [key, pod] : before.view.pods) {
      if (!pod.ended()) receivers.emplace(key, std::make_unique<Receiver>(publisher, key, pod.workload.uid));
    }
    feed.list(after.view, after.mesh.settings);
    publisher.flush();
    for (const auto& [key, receiver] : receivers) {
      const auto expected = fresh.receivers().find(key);
      const bool same_pod =
          expected != fresh.receivers().end() && after.view.pods.at(key).workload.uid == before.view.pods.at(key).workload.uid;
      ASSERT_EQ(receiver->gone(), !same_pod);
      if (!same_pod) continue;
      receiver->take();
      ASSERT_EQ(receiver->held(), expected->second->held()) << "seed " << seed << " " << key.text();
    }
  }
}

SnapshotParts parts_of(const Receiver& receiver, const WorkloadKey& self) {
  SnapshotParts parts;
  parts.self = self;
  for (const auto& [name, resource] : receiver.resources()) {
    const auto done = decode_into(parts, *resource);
    EXPECT_TRUE(done) << (done ? "" : done.error().text());
  }
  return parts;
}

bool same(const Decision& a, const Decision& b) {
  return a.allowed == b.allowed && a.basis == b.basis && (a.origin == nullptr) == (b.origin == nullptr) &&
         (a.origin == nullptr || *a.origin == *b.origin);
}

// Everything is looked up first, as a sidecar does with whoever no peer set of its own names.
TEST(PublisherOrder, WhatIsPutTogetherDecidesLikeTheCompiledSnapshot) {
  std::size_t allowed = 0;
  std::size_t denied = 0;
  for (std::uint32_t seed = 0; seed < 120; ++seed) {
    RandomCluster random(seed);
    Rehearsal run({.view = random.c.view, .mesh = {.settings = random.c.settings, .epoch = {}}}, seed);
    Compiler compiler(random.c.view, random.c.settings);
    for (auto& [key, receiver] : run.receivers()) {
      for (const auto& [other, pod] : random.c.view.pods) {
        for (const IpAddress& address : pod.workload.addresses) receiver->subscription().look_up(address);
      }
      receiver->take();
      const auto assembled = assemble(parts_of(*receiver, key), 1, {});
      ASSERT_TRUE(assembled) << assembled.error().text();
      const auto compiled = compiler.compile(key, 1).value();
      EXPECT_EQ((*assembled)->settings(), compiled->settings());
      for (int i = 0; i < 40; ++i) {
        const auto direction = i % 2 == 0 ? PolicyDirection::ingress : PolicyDirection::egress;
        const Peer peer = random.peer(*compiled);
        const Port port = random.port();
        const Protocol protocol = random.protocol();
        const Verdict expected = decide(compiled.get(), direction, peer, port, protocol);
        const Verdict found = decide(assembled->get(), direction, peer, port, protocol);
        ASSERT_TRUE(same(found.enforced, expected.enforced) && same(found.pending, expected.pending))
            << "seed " << seed << " " << key.text() << " " << peer.address.text() << ":" << port.number << "\n"
            << text_of(explain(**assembled, direction, peer, port, protocol)) << "\nexpected:\n"
            << text_of(explain(*compiled, direction, peer, port, protocol));
        (expected.allowed() ? allowed : denied) += 1;
      }
    }
  }
  EXPECT_GT(allowed, 1'000U);
  EXPECT_GT(denied, 1'000U);
}

}  // namespace
}  // namespace postern::test
