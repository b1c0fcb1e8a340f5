// What it costs to compile a big cluster and to follow its changes: 10,000 pods in 200 namespaces, 5,000 policies, 1,000 subscriptions.
//
//     publisher_bench [pods] [policies] [subscriptions]
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "control/publisher.hpp"

namespace {

using namespace postern;
using Clock = std::chrono::steady_clock;

double milliseconds_since(Clock::time_point start) { return std::chrono::duration<double, std::milli>(Clock::now() - start).count(); }

double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double resident_megabytes() {
  std::FILE* file = std::fopen("/proc/self/statm", "r");
  long total = 0;
  long resident = 0;
  if (file == nullptr || std::fscanf(file, "%ld %ld", &total, &resident) != 2) std::exit(1);
  std::fclose(file);
  return static_cast<double>(resident) * 4096 / 1e6;
}

std::string number(std::size_t n) { return std::to_string(n); }

LabelSelector labelled(std::string key, std::string value) {
  LabelSelector selector;
  selector.match_labels.emplace(std::move(key), std::move(value));
  return selector;
}

class Cluster {
 public:
  Cluster(std::size_t pods, std::size_t policies) : namespaces_(std::max<std::size_t>(1, pods / 50)) {
    store.set_store_uid("bench");
    MeshConfig mesh;
    mesh.settings.trust_domain = TrustDomain::parse("cluster.local").value();
    list<Namespace>(WatchedKind::namespaces, namespaces_, [&](std::size_t i) {
      Namespace ns{.name = "ns-" + number(i), .labels = {{std::string(namespace_name_label), "ns-" + number(i)}}, .mode = {}, .mtls = {}};
      ns.labels["team"] = "team-" + number(i % 20);
      return std::pair{ObjectKey{"", ns.name}, ns};
    });
    list<Pod>(WatchedKind::pods, pods, [&](std::size_t i) { return std::pair{key(i), pod(i)}; });
    list<NetworkPolicy>(WatchedKind::network_policies, policies, [&](std::size_t i) {
      NetworkPolicy p = policy(i);
      return std::pair{ObjectKey{p.ns, p.name}, p};
    });
    list<Service>(WatchedKind::services, namespaces_ * 5, [&](std::size_t i) {
      Service service;
      service.ns = "ns-" + number(i / 5);
      service.name = "app-" + number(i % 5);
      service.selector = {{"app", "app-" + number(i % 5)}};
      service.cluster_ips = {IpAddress::v4({10, 96, static_cast<std::uint8_t>(i / 256), static_cast<std::uint8_t>(i % 256)})};
      service.ports = {{.name = "http", .protocol = Protocol::tcp, .port = Port{80}, .target = {}, .node_port = {}}};
      return std::pair{ObjectKey{service.ns, service.name}, service};
    });
    list<EndpointSlice>(WatchedKind::endpoint_slices, namespaces_ * 5, [&](std::size_t i) {
      EndpointSlice slice{
          .ns = "ns-" + number(i / 5), .name = "app-" + number(i % 5), .service = "app-" + number(i % 5), .ports = {}, .endpoints = {}};
      slice.ports = {{.name = "http", .protocol = Protocol::tcp, .port = Port{8080}}};
      for (std::size_t p = i / 5 + namespaces_ * (i % 5); p < pods; p += namespaces_ * 5) {
        SliceEndpoint& endpoint = slice.endpoints.emplace_back();
        endpoint.addresses = pod(p).workload.addresses;
        endpoint.pod = key(p);
      }
      return std::pair{ObjectKey{slice.ns, slice.name}, slice};
    });
    list<ClusterNode>(WatchedKind::nodes, pods / 50, [&](std::size_t i) {
      ClusterNode node{.name = "node-" + number(i),
                       .addresses = {IpAddress::v4({192, 168, static_cast<std::uint8_t>(i / 250), static_cast<std::uint8_t>(i % 250 + 1)})},
                       .pod_cidrs = {}};
      return std::pair{ObjectKey{"", node.name}, node};
    });
    list<MeshConfig>(WatchedKind::mesh_config, 1, [&](std::size_t) { return std::pair{ObjectKey{"postern-system", "postern"}, mesh}; });
  }

  // Pod i runs app (i / namespaces) % 5 in namespace i % namespaces.
  ObjectKey key(std::size_t i) const { return {"ns-" + number(i % namespaces_), "pod-" + number(i)}; }
  Pod pod(std::size_t i) const {
    Pod pod;
    pod.workload.ns = key(i).ns;
    pod.workload.name = key(i).name;
    pod.workload.uid = "00000000-0000-4000-8000-" + number(100'000'000'000 + i);
    pod.workload.service_account = "default";
    pod.workload.addresses = {
        IpAddress::v4({10, static_cast<std::uint8_t>(i >> 16U), static_cast<std::uint8_t>(i >> 8U), static_cast<std::uint8_t>(i)})};
    pod.workload.meshed = true;
    pod.labels = {
        {"app", "app-" + number(i / namespaces_ % 5)}, {"version", "v" + number(i % 3)}, {"pod-template-hash", "hash-" + number(i % 700)}};
    pod.node_name = "node-" + number(i / 50);
    return pod;
  }
  // Of each five: three within the namespace, one from a team's namespaces, one to an app of every namespace of a team.
  NetworkPolicy policy(std::size_t i) const {
    NetworkPolicy policy;
    policy.ns = "ns-" + number(i % namespaces_);
    policy.name = "policy-" + number(i);
    const std::size_t round = i / namespaces_;
    policy.pod_selector = labelled("app", "app-" + number(round % 5));
    PolicyPort port;
    port.port = Port{static_cast<std::uint16_t>(8000 + i % 100)};
    PolicyPeer peer;
    peer.pod_selector = labelled("app", "app-" + number((round + 1) % 5));
    if (i % 5 == 3) peer.namespace_selector = labelled("team", "team-" + number(i % 20));
    if (i % 5 == 4) {
      peer.namespace_selector = labelled("team", "team-" + number((i + 7) % 20));
      peer.pod_selector.reset();
    }
    PolicyRule rule{.ports = {port}, .peers = {peer}};
    if (round % 2 == 0) {
      policy.ingress = {rule};
    } else {
      policy.isolates_ingress = false;
      policy.isolates_egress = true;
      policy.egress = {rule};
    }
    return policy;
  }

  template <class T>
  void apply(WatchedKind kind, const ObjectKey& object_key, T object) {
    store.apply({.type = WatchEvent::Type::applied, .kind = kind, .key = object_key, .version = ++version_, .object = std::move(object)});
  }

  ClusterStore store;

 private:
  template <class T, class Make>
  void list(WatchedKind kind, std::size_t count, const Make& make) {
    store.apply({.type = WatchEvent::Type::relist_began, .kind = kind, .key = {}, .version = ++version_, .object = Pod{}});
    for (std::size_t i = 0; i < count; ++i) {
      auto [object_key, object] = make(i);
      apply(kind, object_key, T(std::move(object)));
    }
    store.apply({.type = WatchEvent::Type::relisted, .kind = kind, .key = {}, .version = ++version_, .object = Pod{}});
  }

  std::size_t namespaces_;
  std::uint64_t version_ = 0;
};

struct Sidecar {
  std::unique_ptr<Subscription> subscription;
  bool told = false;
};

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

}  // namespace

int main(int argc, char** argv) {
  const std::size_t pods = argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 10'000;
  const std::size_t policies = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 5'000;
  const std::size_t subscriptions = argc > 3 ? std::strtoul(argv[3], nullptr, 10) : 1'000;

  Cluster cluster(pods, policies);
  std::printf("store: %.2f s CPU, %.0f MB\n", cpu_seconds(), resident_megabytes());
  double before = cpu_seconds();
  Publisher publisher(cluster.store);
  publisher.flush();
  std::printf("first flush: %.2f s CPU, %.0f MB in all\n", cpu_seconds() - before, resident_megabytes());

  before = cpu_seconds();
  std::vector<Sidecar> sidecars(subscriptions);
  std::size_t resources = 0;
  std::size_t bytes = 0;
  for (std::size_t i = 0; i < subscriptions; ++i) {
    Sidecar& sidecar = sidecars[i];
    sidecar.subscription = publisher.subscribe(cluster.key(i), cluster.pod(i).workload.uid, [&sidecar](bool) { sidecar.told = true; });
    for (const ResourcePtr& resource : sidecar.subscription->difference({}).resources) {
      ++resources;
      bytes += resource->body.size();
    }
  }
  const Publisher::Stats stats = publisher.stats();
  std::printf("%zu subscriptions: %.2f s CPU, %.0f MB in all; %zu lists, %zu sets; on average %zu resources, %zu bytes\n", subscriptions,
              cpu_seconds() - before, resident_megabytes(), stats.allow_lists, stats.peer_sets, resources / subscriptions,
              bytes / subscriptions);

  const auto measure = [&](const char* what, const auto& change) {
    std::vector<double> flushes;
    std::vector<double> takes;
    std::size_t told = 0;
    for (std::size_t i = 0; i < 100; ++i) {
      change(i);
      const auto start = Clock::now();
      publisher.flush();
      flushes.push_back(milliseconds_since(start));
      const auto taking = Clock::now();
      for (Sidecar& sidecar : sidecars) {
        if (!std::exchange(sidecar.told, false)) continue;
        ++told;
        sidecar.subscription->changes({});
      }
      takes.push_back(milliseconds_since(taking));
    }
    std::printf("%s: flush %.3f ms (at most %.3f), %zu told, taken in %.3f ms\n", what, median(flushes),
                *std::max_element(flushes.begin(), flushes.end()), told / 100, median(takes));
  };
  measure("a pod's label", [&](std::size_t round) {
    const std::size_t i = pods - 1 - round;
    Pod pod = cluster.pod(i);
    pod.labels["app"] = "app-other";
    cluster.apply(WatchedKind::pods, cluster.key(i), pod);
  });
  measure("a policy's edit", [&](std::size_t i) {
    NetworkPolicy policy = cluster.policy(i);
    (policy.isolates_ingress ? policy.ingress : policy.egress)[0].ports[0].port = Port{9999};
    const ObjectKey policy_key{policy.ns, policy.name};
    cluster.apply(WatchedKind::network_policies, policy_key, policy);
  });
  measure("a namespace's label", [&](std::size_t i) {
    Namespace ns{.name = "ns-" + number(i),
                 .labels = {{std::string(namespace_name_label), "ns-" + number(i)}, {"team", "team-x"}},
                 .mode = {},
                 .mtls = {}};
    cluster.apply(WatchedKind::namespaces, ObjectKey{"", ns.name}, ns);
  });
  return 0;
}
