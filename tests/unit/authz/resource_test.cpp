#include "authz/resource.hpp"

#include <gtest/gtest.h>

#include <chrono>

#include "authz/stream_messages.hpp"
#include "tests/unit/authz/parts_of.hpp"
#include "tests/unit/authz/random_cluster.hpp"

namespace postern::test {
namespace {

std::string failure(SnapshotParts& parts, const std::string& name, std::string body) {
  const auto result = decode_into(parts, Resource{.name = name, .hash = "h", .body = std::move(body)});
  return result ? "accepted" : result.error().text();
}
std::string failure(const std::string& name, std::string body) {
  SnapshotParts parts;
  const std::string text = failure(parts, name, std::move(body));
  EXPECT_TRUE(text == "accepted" || parts == SnapshotParts{}) << name;  // as it was
  return text;
}

// The resources that the parts are, by name.
std::map<std::string, std::string> encoded(const SnapshotParts& parts) {
  std::map<std::string, std::string> out{{"settings", encode(*parts.settings)},
                                         {"allow-list", encode(*parts.allow_list)},
                                         {"probes", encode_probes(parts.probe_ports)},
                                         {"nodes", encode_nodes(parts.nodes)}};
  for (const auto& [id, set] : parts.peer_sets) out[peer_set_resource_name(id)] = encode(set);
  for (const auto& [key, pod] : parts.pods) out[resource_name(pod)] = encode(pod);
  for (const auto& [key, service] : parts.services) out[service_resource_name(key)] = encode(service);
  return out;
}

// Services of every kind, some with slices.
void add_services(RandomCluster& random) {
  for (std::uint32_t i = 0; i < 4; ++i) {
    const std::string name = "svc-" + std::to_string(i);
    Service& service = random.c.service("ns-0/" + name, "10.96.0." + std::to_string(i + 1), {}, {});
    service.ports = {{.name = "a", .protocol = Protocol::tcp, .port = random.port(), .target = "http", .node_port = {}},
                     {.name = "b", .protocol = Protocol::tcp, .port = random.port(), .target = {}, .node_port = Port{30080}}};
    service.client_ip_affinity = random.below(2) == 0;
    service.internal_traffic_local = random.below(2) == 0;
    if (random.below(2) == 0) service.external_ips = {ip("198.51.100.1"), ip("fd01::1")};
    service.selector = {{"app", "a"}};
    if (random.below(2) == 0) continue;
    EndpointSlice& slice = random.c.view.endpoint_slices[{"ns-0", name}];
    slice = {.ns = "ns-0",
             .name = name,
             .service = name,
             .ports = {{"a", Protocol::tcp, Port{80}}, {"b", Protocol::tcp, Port{81}}},
             .endpoints = {}};
    for (const auto& [key, pod] : random.c.view.pods) {
      for (const IpAddress& address : pod.workload.addresses) {
        SliceEndpoint& endpoint = slice.endpoints.emplace_back();
        endpoint.addresses = {address};
        endpoint.ready = random.below(3) != 0;
        endpoint.terminating = !endpoint.ready && random.below(2) == 0;
        endpoint.node_name = random.below(2) == 0 ? "node-1" : "";
        if (random.below(2) == 0) endpoint.pod = key;
      }
    }
  }
}

TEST(Resource, PartsComeBackAsTheyWere) {
  for (std::uint32_t seed = 0; seed < 200; ++seed) {
    RandomCluster random(seed);
    add_services(random);
    random.c.settings.cluster_cidrs = {cidr("10.0.0.0/8"), cidr("fd00::/16")};
    if (seed % 2 == 0) random.c.settings.denied = {{"0A", "4B2F"}, {"spiffe://example.org/a", "spiffe://example.org/b"}};
    auto& odd = random.c.view.pods.begin()->second;
    odd.workload.port_mtls = {{Port{80}, MtlsMode::spiffe}, {Port{81}, MtlsMode::permissive}};
    odd.workload.excluded_inbound_ports = {Port{22}};
    odd.workload.excluded_outbound_ports = {Port{53}, Port{54}};
    odd.terminating = true;
    for (const auto& [id, pod] : random.c.view.pods) {
      if (pod.ended()) continue;
      const SnapshotParts parts = all_parts(random.c.view, random.c.settings, id);
      SnapshotParts back{.self = parts.self,
                         .settings = {},
                         .allow_list = {},
                         .probe_ports = {},
                         .peer_sets = {},
                         .pods = {},
                         .services = {},
                         .nodes = {}};
      for (const auto& [name, body] : encoded(parts)) {
        ASSERT_EQ(failure(back, name, body), "accepted") << "seed " << seed << "\n" << body;
      }
      ASSERT_EQ(back, parts) << "seed " << seed << " " << id.text();
      ASSERT_EQ(encoded(back), encoded(parts));
      for (const auto& [name, body] : encoded(parts)) remove_from(back, name);
      ASSERT_EQ(back, (SnapshotParts{.self = parts.self,
                                     .settings = {},
                                     .allow_list = {},
                                     .probe_ports = {},
                                     .peer_sets = {},
                                     .pods = {},
                                     .services = {},
                                     .nodes = {}}));
    }
  }
}

TEST(Resource, APodsProbesDoNotTravel) {
  ClusterBuilder c;
  c.ns("shop");
  c.pod("shop/web", "10.0.0.1", {{"secret", "label"}}).workload.probe_ports = {{Port{8080}, "/internal"}};
  const std::string body = encode(record_of(c.view.pods.at(key("shop/web")), c.view, MtlsMode::strict));
  EXPECT_EQ(body, R"({"namespace":"shop","name":"web","uid":"uid-web","serviceAccount":"default","addresses":["10.0.0.1"],"meshed":true,)"
                  R"("mtls":"strict","node":"node-1"})");
}

TEST(Resource, UnknownNamesAreRefused) {
  for (const char* name : {"", "pods", "pod", "peer-set", "peer-set/", "settings/x", "service", "allow-list/other", "Settings"}) {
    EXPECT_NE(failure(name, "{}").find("unknown kind of resource"), std::string::npos) << name;
  }
  EXPECT_NE(failure("peer-set/" + std::string(600, 'x'), "{}").find("longer than 512"), std::string::npos);
}

TEST(Resource, ABodyIsOfTheObjectThatTheNameSays) {
  const std::string body = R"({"namespace":"shop","name":"web","serviceAccount":"default","mtls":"strict"})";
  EXPECT_EQ(failure("pod/shop/web", body), "accepted");
  EXPECT_NE(failure("pod/shop/db", body).find("not of the object"), std::string::npos);
  EXPECT_NE(failure("pod/shop", body).find("not of the object"), std::string::npos);
  EXPECT_NE(failure("service/shop/db", R"({"namespace":"shop","name":"web"})").find("not of the object"), std::string::npos);
}

struct Refused {
  const char* name;
  const char* body;
  const char* part;  // of the message
};

TEST(Resource, HostileBodiesAreRefusedAndNamed) {
  const std::vector<Refused> cases{
      {"settings", "[]", "expected a mapping"},
      {"settings", "{", "settings"},
      {"settings", "{} {}", "settings"},
      {"settings", R"({"defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict"})", "settings:1: trustDomain"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"allow","nodeTraffic":"all","mtls":"strict"})", "kubernetes, deny"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","audit":"yes"})", "audit"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","clusterCidrs":["10/8"]})",
       "clusterCidrs[0]"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","more":1})", "unknown field"},
      {"settings", R"({"trustDomain":"a.b","trustDomain":"c.d"})", "trustDomain"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","denied":{"serials":["4b"]}})",
       "denied.serials[0]"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","denied":{"serials":["0B","0A"]}})",
       "must be sorted"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","denied":{"spiffeIds":["web"]}})",
       "denied.spiffeIds[0]"},
      {"settings", R"({"trustDomain":"a.b","defaultPolicy":"deny","nodeTraffic":"all","mtls":"strict","denied":{"pods":[]}})",
       "unknown field"},
      {"allow-list", "{}", "ingress"},
      {"allow-list", R"({"ingress":{},"egress":{"rules":[{}]}})", "egress.rules[0]"},
      {"allow-list", R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0}]},"egress":{}})", "allows nobody"},
      {"allow-list", R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{"set":0}]}]},"egress":{}})", "peers[0].set"},
      {"allow-list", R"({"peerSets":["x"],"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{"set":1}]}]},"egress":{}})",
       "expected 0 to 0"},
      {"allow-list", R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":-1,"peers":[{}]}]},"egress":{}})", "rule"},
      {"allow-list",
       R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{"cidr":"10.0.0.0/8","set":0}]}]},"egress":{}})",
       "names more than one"},
      {"allow-list",
       R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{"cidr":"10.0.0.0/8","except":["11.0.0.0/9"]}]}]},"egress":{}})",
       "lies outside"},
      {"allow-list", R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{"except":["11.0.0.0/9"]}]}]},"egress":{}})",
       "only a block"},
      {"allow-list",
       R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{}],"ports":[{"port":90,"endPort":80}]}]},"egress":{}})",
       "endPort"},
      {"allow-list", R"({"ingress":{"rules":[{"namespace":"a","policy":"p","rule":0,"peers":[{}],"ports":[{"port":0}]}]},"egress":{}})",
       "ports[0].port"},
      {"allow-list", R"({"ingress":{"defaultDeny":"off"},"egress":{}})", "enforce, audit"},
      {"allow-list", R"({"ingress":{"isolating":[{"namespace":"A b","policy":"p"}]},"egress":{}})", "isolating[0].namespace"},
      {"peer-set/x", R"({"members":["shop/b","shop/a"]})", "sorted"},
      {"peer-set/x", R"({"members":["shop/a","shop/a"]})", "each once"},
      {"peer-set/x", R"({"members":["shop"]})", "namespace/name"},
      {"peer-set/x", R"({"members":["shop/a/b"]})", "namespace/name"},
      {"peer-set/x", R"({"wholeNamespaces":true,"members":["shop/a"]})", "no members"},
      {"peer-set/x", R"({"namespaces":["shop"]})", "whole namespaces"},
      {"peer-set/x", R"({"podSelector":{},"wholeNamespaces":true})", "namespaceSelector: Required value"},
      {"peer-set/x", R"({"namespaceSelector":{},"wholeNamespaces":true})", "podSelector: Required value"},
      {"peer-set/x", R"({"namespaceSelector":{},"podSelector":{"matchLabels":{"app":"web"}},"wholeNamespaces":true})",
       "not whole namespaces"},
      {"peer-set/x", R"({"podSelector":{"matchLabels":{"a b":"c"}}})", "podSelector"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"default","mtls":"none"})", "mtls"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"default","mtls":"strict","uid":"a/b"})", "uid"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"x/y","mtls":"strict"})", "serviceAccount"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"x","mtls":"strict","addresses":["10.0.0.256"]})",
       "addresses[0]"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"x","mtls":"strict","addresses":[""]})", "addresses[0]"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"x","mtls":"strict","annotations":{}})", "unknown field"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"x","mtls":"strict","probePorts":[]})", "unknown field"},
      {"pod/shop/web", R"({"namespace":"shop","name":"web","serviceAccount":"x","mtls":"strict","portMtls":[{"port":1}]})",
       "portMtls[0].mtls"},
      {"service/shop/db", R"({"namespace":"shop","name":"db","ports":[{"port":80,"ipv4":[{"address":"fd00::1","port":1}]}]})", "family"},
      {"service/shop/db", R"({"namespace":"shop","name":"db","ports":[{"port":80,"ipv4":[{"address":"10.0.0.1"}]}]})", "ipv4[0].port"},
      {"service/shop/db",
       R"({"namespace":"shop","name":"db","ports":[{"port":80,"ipv4":[{"address":"10.0.0.2","port":1},{"address":"10.0.0.1","port":1}]}]})",
       "sorted"},
      {"service/shop/db", R"({"namespace":"shop","name":"db","ports":[{"port":65536}]})", "ports[0].port"},
      {"probes", R"({"probes":[{"path":"/"}]})", "probes[0].port"},
      {"nodes", R"({"addresses":["node-1"]})", "addresses[0]"},
      {"nodes", R"({"addresses":"10.0.0.1"})", "a list"},
  };
  for (const auto& [name, body, part] : cases) {
    const std::string text = failure(name, body);
    EXPECT_NE(text.find(part), std::string::npos) << name << " " << body << "\n" << text;
    EXPECT_NE(text.find(std::string(name).substr(0, 8)), std::string::npos) << text;  // says which resource
  }
  EXPECT_NE(failure("nodes", std::string(100, '[') + std::string(100, ']')), "accepted");
}

TEST(Resource, ABadOneLeavesTheGoodPartInPlace) {
  SnapshotParts parts;
  ASSERT_EQ(failure(parts, "nodes", R"({"addresses":["192.168.0.1"]})"), "accepted");
  const SnapshotParts before = parts;
  EXPECT_NE(failure(parts, "nodes", R"({"addresses":["192.168.0.2","x"]})"), "accepted");
  EXPECT_EQ(parts, before);
}

TEST(Resource, RemovingTheAllowListIsNotOpening) {
  ClusterBuilder c;
  c.ns("shop");
  c.pod("shop/web", "10.0.0.1");
  SnapshotParts parts = all_parts(c.view, c.settings, key("shop/web"));
  remove_from(parts, "allow-list");
  EXPECT_FALSE(assemble(parts, 1, {}));
  remove_from(parts, "nothing/of/the/kind");
  remove_from(parts, "pod/not-there");
  EXPECT_EQ(parts.pods.size(), 1U);
}

TEST(Resource, TheTrustBundleIsReadAsWrittenAndTakenAway) {
  SnapshotParts parts;
  const std::string name(trust_bundle_name);
  EXPECT_EQ(failure(parts, name, encode_trust_bundle(7, "roots\n")), "accepted");
  EXPECT_EQ(parts.trust_bundle, (TrustBundleRecord{7, "roots\n"}));
  EXPECT_NE(failure(name, R"({"sequence":-1,"roots":"r"})"), "accepted");
  EXPECT_NE(failure(name, R"({"sequence":1})"), "accepted");
  EXPECT_NE(failure(name, R"({"sequence":1,"roots":"r","more":1})"), "accepted");
  remove_from(parts, name);
  EXPECT_FALSE(parts.trust_bundle);
}

TEST(Resource, ASetOfFiveThousandIsReadInATurn) {
  PeerSetRecord set;
  set.pods = canonical(labelled({{"app", "web"}}));
  for (int i = 0; i < 5000; ++i)
    set.members.push_back({"team-" + std::to_string(i / 100 + 100), "web-7d4b9c-" + std::to_string(10000 + i)});
  const Resource resource{.name = "peer-set/x", .hash = "h", .body = encode(set)};
  EXPECT_LT(resource.body.size(), 150'000U);
  SnapshotParts parts;
  const auto start = std::chrono::steady_clock::now();
  ASSERT_TRUE(decode_into(parts, resource));
  const auto took = std::chrono::steady_clock::now() - start;
  RecordProperty("microseconds", static_cast<int>(std::chrono::duration_cast<std::chrono::microseconds>(took).count()));
  EXPECT_EQ(parts.peer_sets.at("x"), set);
  EXPECT_LT(took, std::chrono::seconds(1));  // some 10 ms, but for sanitizers and busy machines
}

}  // namespace
}  // namespace postern::test
