// One test per row of docs/services.md, which names them.
#include "authz/service_record.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>

#include "tests/unit/authz/cluster_builder.hpp"

namespace postern::test {
namespace {

using Kind = Destination::Kind;

// A client on node-1, and the Service shop/db with EndpointSlices. Its pods have records, and no labels that could select them.
class Services : public testing::Test {
 protected:
  Services() {
    c.ns("shop");
    c.pod("shop/client", "10.0.0.1");
    Service& db = c.service("shop/db", "10.96.0.1", {{"app", "db"}}, {port("sql", 80)});
    db.cluster_ips.push_back(ip("fd96::1"));
    c.view.nodes["node-1"] = {.name = "node-1", .addresses = {ip("192.168.0.1")}, .pod_cidrs = {}};
    c.settings.cluster_cidrs = {cidr("10.0.0.0/8")};
  }

  static ServicePort port(std::string name, std::uint16_t number) {
    return {.name = std::move(name), .protocol = Protocol::tcp, .port = Port{number}, .target = std::nullopt, .node_port = {}};
  }

  Service& db() { return c.view.services.at(key("shop/db")); }

  EndpointSlice& slice(std::string name, std::uint16_t target, std::string port_name = "sql", std::string service = "db") {
    EndpointSlice& out = c.view.endpoint_slices[{"shop", name}];
    out = {.ns = "shop", .name = name, .service = std::move(service), .ports = {}, .endpoints = {}};
    out.ports.push_back({.name = std::move(port_name), .protocol = Protocol::tcp, .port = Port{target}});
    return out;
  }

  // A pod shop/<name> and its endpoint in the slice.
  SliceEndpoint& endpoint(EndpointSlice& slice, const std::string& name, std::string_view address, std::string node = "node-1") {
    c.pod("shop/" + name, address);
    return bare_endpoint(slice, name, address, std::move(node));
  }
  static SliceEndpoint& bare_endpoint(EndpointSlice& slice, const std::string& name, std::string_view address, std::string node) {
    SliceEndpoint& out = slice.endpoints.emplace_back();
    out.addresses = {ip(address)};
    out.node_name = std::move(node);
    if (!name.empty()) out.pod = ObjectKey{"shop", name};
    return out;
  }

  Destination resolve(const SocketAddress& original, std::uint32_t pick = 0, std::uint32_t attempt = 0) {
    snapshots_.push_back(c.compile("shop/client"));
    return snapshots_.back()->resolve(original, pick, attempt);
  }
  std::set<std::string> all(const SocketAddress& original) {
    std::set<std::string> result;
    for (std::uint32_t pick = 0; pick < 6; ++pick) {
      const Destination destination = resolve(original, pick);
      result.insert(destination.kind == Kind::no_endpoint ? "none" : destination.address.text());
    }
    return result;
  }

  using Set = std::set<std::string>;
  const SocketAddress cluster_ip = at("10.96.0.1", 80);
  ClusterBuilder c;

 private:
  std::vector<std::shared_ptr<const PolicySnapshot>> snapshots_;  // destinations point into them
};

TEST_F(Services, AClusterIpLeadsToTheEndpointsOfItsSlices) {
  endpoint(slice("db-1", 5432), "a", "10.0.1.1");
  endpoint(slice("db-2", 6432), "b", "10.0.1.2");
  endpoint(slice("other", 1, "sql", "elsewhere"), "c", "10.0.1.3");
  endpoint(slice("port", 1, "metrics"), "d", "10.0.1.4");
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:5432", "10.0.1.2:6432"}));
  EXPECT_EQ(resolve(cluster_ip).kind, Kind::workload);
  EXPECT_EQ(all(at("fd96::1", 80)), (Set{"none"}));
  bare_endpoint(slice("db-6", 5432), "a", "fd00::1", "node-1");
  EXPECT_EQ(all(at("fd96::1", 80)), (Set{"[fd00::1]:5432"}));
}

TEST_F(Services, WithoutSlicesTheSelectorsPodsCount) {
  c.pod("shop/a", "10.0.1.1", {{"app", "db"}});
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:80"}));
  endpoint(slice("db-1", 5432), "b", "10.0.1.2");
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.2:5432"}));
  c.view.endpoint_slices.at(key("shop/db-1")).endpoints.clear();  // an empty slice is an answer, too
  EXPECT_EQ(all(cluster_ip), (Set{"none"}));
}

TEST_F(Services, HeadlessIsDialledByPodAddress) {
  db().cluster_ips.clear();
  endpoint(slice("db-1", 5432), "a", "10.0.1.1");
  const Destination pod = resolve(at("10.0.1.1", 5432));
  EXPECT_EQ(pod.kind, Kind::workload);
  EXPECT_EQ(pod.workload->name, "a");
  EXPECT_EQ(pod.service, "");
  EXPECT_EQ(resolve(cluster_ip).kind, Kind::unknown);
}

TEST_F(Services, SelectorlessHasTheEndpointsOfItsOwnSlices) {
  db().selector.clear();
  auto& own = slice("by-hand", 5432);
  bare_endpoint(own, "", "203.0.113.7", "");
  const Destination outside = resolve(cluster_ip);
  EXPECT_EQ(outside.kind, Kind::outside);
  EXPECT_EQ(outside.address, at("203.0.113.7", 5432));
  EXPECT_EQ(outside.service, "shop/db");
  own.endpoints.clear();
  bare_endpoint(own, "", "10.0.1.9", "");  // inside the cluster's ranges, and nobody's that we know
  EXPECT_EQ(resolve(cluster_ip).kind, Kind::unknown);
  c.pod("shop/late", "10.0.1.9");
  EXPECT_EQ(resolve(cluster_ip).kind, Kind::workload);
}

TEST_F(Services, KubernetesDefaultLeadsToTheApiServersNode) {
  c.ns("default");
  c.service("default/kubernetes", "10.96.0.2", {}, {port("https", 443)});
  EndpointSlice api{.ns = "default", .name = "kubernetes", .service = "kubernetes", .ports = {}, .endpoints = {}};
  api.ports = {{.name = "https", .protocol = Protocol::tcp, .port = Port{6443}}};
  bare_endpoint(api, "", "192.168.0.1", "");
  c.view.endpoint_slices[{"default", "kubernetes"}] = api;
  c.settings.cluster_cidrs.push_back(cidr("192.168.0.0/24"));
  const Destination destination = resolve(at("10.96.0.2", 443));
  EXPECT_EQ(destination.kind, Kind::outside);  // a node is an ordinary address to policies
  EXPECT_EQ(destination.address, at("192.168.0.1", 6443));
}

TEST_F(Services, AffinityKeepsOneEndpoint) {
  auto& own = slice("db-1", 5432);
  for (int i = 1; i <= 3; ++i) endpoint(own, "db-" + std::to_string(i), "10.0.1." + std::to_string(i));
  EXPECT_EQ(all(cluster_ip).size(), 3U);
  db().client_ip_affinity = true;
  EXPECT_EQ(all(cluster_ip).size(), 1U);
  EXPECT_NE(resolve(cluster_ip, 0, 1).address, resolve(cluster_ip, 0, 0).address);  // a retry goes elsewhere
}

TEST_F(Services, InternalTrafficPolicyLocalStaysOnTheNode) {
  db().internal_traffic_local = true;
  auto& own = slice("db-1", 5432);
  endpoint(own, "near", "10.0.1.1", "node-1");
  endpoint(own, "far", "10.0.1.2", "node-2");
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:5432"}));
  db().external_ips = {ip("198.51.100.7")};
  EXPECT_EQ(all(at("198.51.100.7", 80)), (Set{"10.0.1.1:5432", "10.0.1.2:5432"}));  // it is of ClusterIPs only
  // Terminating ones are the last resort of each node by itself.
  own.endpoints.front().ready = false;
  own.endpoints.front().terminating = true;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:5432"}));
  own.endpoints.front().serving = false;
  EXPECT_EQ(all(cluster_ip), (Set{"none"}));
}

TEST_F(Services, TerminatingIsTheLastResort) {
  auto& own = slice("db-1", 5432);
  endpoint(own, "a", "10.0.1.1");
  SliceEndpoint& leaving = endpoint(own, "b", "10.0.1.2");
  leaving.ready = false;
  leaving.terminating = true;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:5432"}));
  own.endpoints.front().ready = false;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.2:5432"}));
  own.endpoints.back().serving = false;
  EXPECT_EQ(all(cluster_ip), (Set{"none"}));
}

TEST_F(Services, TerminatingPodsAreTheLastResortWithoutSlicesToo) {
  c.pod("shop/a", "10.0.1.1", {{"app", "db"}});
  c.pod("shop/b", "10.0.1.2", {{"app", "db"}}).terminating = true;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:80"}));
  c.view.pods.at(key("shop/a")).ready = false;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.2:80"}));
}

TEST_F(Services, NotReadyGetsNothing) {
  auto& own = slice("db-1", 5432);
  endpoint(own, "a", "10.0.1.1").ready = false;
  EXPECT_EQ(all(cluster_ip), (Set{"none"}));
  endpoint(own, "b", "10.0.1.2");
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.2:5432"}));
}

TEST_F(Services, PublishNotReadyAddressesCountsAllPods) {
  c.pod("shop/a", "10.0.1.1", {{"app", "db"}}).ready = false;
  EXPECT_EQ(all(cluster_ip), (Set{"none"}));
  db().publish_not_ready = true;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:80"}));
  // With slices it is the API server that says ready: true for them.
  endpoint(slice("db-1", 5432), "b", "10.0.1.2").serving = false;
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.2:5432"}));
}

TEST_F(Services, HairpinIsThePodItself) {
  auto& own = slice("db-1", 5432);
  bare_endpoint(own, "client", "10.0.0.1", "node-1");
  const Destination self = resolve(cluster_ip);
  EXPECT_EQ(self.kind, Kind::self);
  EXPECT_EQ(self.address, at("10.0.0.1", 5432));
}

TEST_F(Services, NodePortsAreThereAtNodesOnly) {
  endpoint(slice("db-1", 5432), "a", "10.0.1.1");
  db().ports.front().node_port = Port{30080};
  EXPECT_EQ(all(at("192.168.0.1", 30080)), (Set{"10.0.1.1:5432"}));
  EXPECT_EQ(resolve(at("192.168.0.1", 30081)).kind, Kind::outside);
  EXPECT_EQ(resolve(at("203.0.113.1", 30080)).address, at("203.0.113.1", 30080));
}

TEST_F(Services, LoadBalancerAddressesLeadToTheEndpoints) {
  endpoint(slice("db-1", 5432), "a", "10.0.1.1");
  db().load_balancer_ips = {ip("198.51.100.8")};
  EXPECT_EQ(all(at("198.51.100.8", 80)), (Set{"10.0.1.1:5432"}));
  EXPECT_EQ(resolve(at("198.51.100.8", 81)).kind, Kind::outside);
}

TEST_F(Services, ExternalIpsLeadToTheEndpointsAndTheFirstByNameHasThem) {
  endpoint(slice("db-1", 5432), "a", "10.0.1.1");
  db().external_ips = {ip("198.51.100.7")};
  c.service("shop/zz", "10.96.0.9", {}, {port("sql", 80)}).external_ips = {ip("198.51.100.7")};
  EXPECT_EQ(resolve(at("198.51.100.7", 80)).service, "shop/db");
  EXPECT_EQ(all(at("198.51.100.7", 80)), (Set{"10.0.1.1:5432"}));
}

TEST_F(Services, NamedTargetPortsAreNumbersInTheSlices) {
  db().ports.front().target = "sql-port";  // resolved by the EndpointSlice controller, per slice
  c.pod("shop/old", "10.0.1.1").workload.named_ports = {{"sql-port", Protocol::tcp, Port{1}}};
  bare_endpoint(slice("db-1", 5432), "old", "10.0.1.1", "node-1");
  endpoint(slice("db-2", 6432), "new", "10.0.1.2");
  EXPECT_EQ(all(cluster_ip), (Set{"10.0.1.1:5432", "10.0.1.2:6432"}));
}

TEST_F(Services, AnExternalNameLeadsNowhere) {
  db().type = ServiceType::external_name;
  EXPECT_FALSE(resolve_service(db(), c.view));
  EXPECT_EQ(resolve(cluster_ip).kind, Kind::unknown);
}

TEST_F(Services, TheOrderOfSlicesAndOfTheirEndpointsDoesNotMatter) {
  auto& first = slice("db-1", 5432);
  auto& second = slice("db-2", 5432);
  for (int i = 1; i <= 4; ++i) endpoint(first, "p" + std::to_string(i), "10.0.1." + std::to_string(i));
  second.endpoints = first.endpoints;  // as while a slice is being replaced
  second.endpoints[1].ready = false;
  second.endpoints[2].node_name = "another";
  const auto expected = resolve_service(db(), c.view);
  ASSERT_TRUE(expected);
  EXPECT_EQ(expected->ports.front().of(IpFamily::v4).size(), 4U);
  std::mt19937 random(1);
  for (int i = 0; i < 20; ++i) {
    std::shuffle(first.endpoints.begin(), first.endpoints.end(), random);
    std::shuffle(second.endpoints.begin(), second.endpoints.end(), random);
    EXPECT_EQ(resolve_service(db(), {&second, &first}, c.view), expected);
    EXPECT_EQ(resolve_service(db(), {&first, &second}, c.view), expected);
  }
  EXPECT_EQ(resolve_services(c.view), std::vector<ServiceRecord>{*expected});
}

}  // namespace
}  // namespace postern::test
