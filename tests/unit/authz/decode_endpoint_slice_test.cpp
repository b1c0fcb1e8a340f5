#include "authz/decode_endpoint_slice.hpp"

#include <gtest/gtest.h>

#include "authz/manifests.hpp"

namespace postern {
namespace {

Result<EndpointSlice> decode(const std::string& yaml) {
  auto documents = parse_yaml(yaml, "slice.yaml");
  if (!documents || documents->size() != 1) return Error{"no single document", {}};
  return decode_endpoint_slice((*documents)[0]);
}

std::string failure(const std::string& rest) {
  const auto slice = decode("metadata: {name: db-x, namespace: shop}\n" + rest);
  return slice ? "accepted" : slice.error().text();
}

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

TEST(DecodeEndpointSlice, ReadsWhatTheApiServerSends) {
  const auto slice = decode(R"(
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata:
  name: db-x
  namespace: shop
  generateName: db-
  labels: {kubernetes.io/service-name: db, endpointslice.kubernetes.io/managed-by: endpointslice-controller.k8s.io}
  managedFields: [{manager: kube-controller-manager}]
addressType: IPv4
ports:
- {name: sql, port: 5432, protocol: TCP, appProtocol: postgres}
- {name: "", port: 53, protocol: UDP}
- {name: anything}
endpoints:
- addresses: [10.0.1.1]
  conditions: {ready: true, serving: true, terminating: false}
  nodeName: node-1
  zone: a
  targetRef: {kind: Pod, namespace: shop, name: db-0, uid: u-1}
- addresses: [10.0.1.2, 10.0.1.3]
  conditions: {ready: false, serving: true, terminating: true}
  targetRef: {kind: Node, name: n}
- addresses: [10.0.1.4]
)");
  ASSERT_TRUE(slice) << slice.error().text();
  EXPECT_EQ(slice->ns, "shop");
  EXPECT_EQ(slice->service, "db");
  ASSERT_EQ(slice->ports.size(), 2U);  // no number: kube-proxy sends nothing there
  EXPECT_EQ(slice->ports[0], (SlicePort{.name = "sql", .protocol = Protocol::tcp, .port = Port{5432}}));
  EXPECT_EQ(slice->ports[1].protocol, Protocol::udp);
  ASSERT_EQ(slice->endpoints.size(), 3U);
  EXPECT_EQ(slice->endpoints[0].pod, (ObjectKey{"shop", "db-0"}));
  EXPECT_EQ(slice->endpoints[0].node_name, "node-1");
  EXPECT_FALSE(slice->endpoints[1].ready);
  EXPECT_TRUE(slice->endpoints[1].terminating);
  EXPECT_EQ(slice->endpoints[1].addresses, (std::vector{ip("10.0.1.2"), ip("10.0.1.3")}));
  EXPECT_FALSE(slice->endpoints[1].pod);
  EXPECT_TRUE(slice->endpoints[2].ready && slice->endpoints[2].serving && !slice->endpoints[2].terminating);
}

TEST(DecodeEndpointSlice, HostNamesAreNoEndpoints) {
  const auto slice = decode("metadata: {name: x}\naddressType: FQDN\nendpoints: [{addresses: [db.example.org]}]\n");
  ASSERT_TRUE(slice) << slice.error().text();
  EXPECT_TRUE(slice->endpoints.empty());
  EXPECT_EQ(slice->service, "");
}

TEST(DecodeEndpointSlice, RefusesWhatTheApiServerRefuses) {
  EXPECT_NE(failure("endpoints: []\n").find("addressType"), std::string::npos);
  EXPECT_NE(failure("addressType: IPX\n").find("Unsupported value"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nendpoints: [{addresses: []}]\n").find("endpoints[0].addresses"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nendpoints: [{addresses: [\"\"]}]\n").find("endpoints[0].addresses[0]"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nendpoints: [{addresses: [\"fd00::1\"]}]\n").find("addressType"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nendpoints: [{addresses: [10.0.0.1.2]}]\n").find("valid IP"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nports: [{port: 70000}]\n").find("65535"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nports: [{name: Bad_, port: 1}]\n").find("ports[0].name"), std::string::npos);
  EXPECT_NE(failure("addressType: IPv4\nendpoints: [1]\n").find("a mapping"), std::string::npos);
  EXPECT_EQ(failure("addressType: IPv4\n"), "accepted");
}

TEST(DecodeEndpointSlice, ManifestsHaveThemToo) {
  const std::string text =
      "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: db-x, namespace: shop}\naddressType: IPv4\n";
  const auto one = decode_manifests(*parse_yaml(text, "m.yaml"));
  ASSERT_TRUE(one) << one.error().text();
  EXPECT_EQ(one->cluster.endpoint_slices.count({"shop", "db-x"}), 1U);
  EXPECT_FALSE(decode_manifests(*parse_yaml(text + "---\n" + text, "m.yaml")));
  std::string beta = text;
  beta.replace(beta.find("/v1"), 3, "/v1beta1");
  EXPECT_FALSE(decode_manifests(*parse_yaml(beta, "m.yaml")));
}

}  // namespace
}  // namespace postern
