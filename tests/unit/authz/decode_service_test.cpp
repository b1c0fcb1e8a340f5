#include "authz/decode_service.hpp"

#include <gtest/gtest.h>

namespace postern {
namespace {

Result<Service> decode(const std::string& yaml) {
  auto documents = parse_yaml(yaml, "svc.yaml");
  if (!documents || documents->size() != 1) return Error{"no single document", {}};
  return decode_service((*documents)[0]);
}

Service decoded(const std::string& spec) {
  const auto service = decode("metadata: {name: web}\nspec: " + spec + "\n");
  if (!service) {
    ADD_FAILURE() << service.error().text();
    return {};
  }
  return *service;
}

std::string failure(const std::string& spec) {
  const auto service = decode("metadata: {name: web}\nspec: " + spec + "\n");
  return service ? "accepted" : service.error().text();
}

IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }

TEST(DecodeService, ReadsWhatResolvingUses) {
  const auto service = decode(R"(
metadata: {name: web, namespace: shop}
spec:
  type: LoadBalancer
  selector: {app: web}
  clusterIP: 10.96.0.1
  clusterIPs: [10.96.0.1, "fd00:96::1"]
  externalIPs: [192.0.2.1]
  sessionAffinity: ClientIP
  sessionAffinityConfig: {clientIP: {timeoutSeconds: 60}}
  internalTrafficPolicy: Local
  publishNotReadyAddresses: true
  ports:
  - {name: http, port: 80, targetPort: 8080, nodePort: 30080}
  - {name: named, port: 81, targetPort: web}
  - {name: same, port: 82, protocol: UDP}
status: {loadBalancer: {ingress: [{ip: 203.0.113.1}, {hostname: lb.example}]}}
)");
  ASSERT_TRUE(service) << service.error().text();
  EXPECT_EQ(service->ns, "shop");
  EXPECT_EQ(service->name, "web");
  EXPECT_EQ(service->type, ServiceType::load_balancer);
  EXPECT_EQ(service->selector, (Labels{{"app", "web"}}));
  EXPECT_EQ(service->cluster_ips, (std::vector{ip("10.96.0.1"), ip("fd00:96::1")}));
  EXPECT_EQ(service->external_ips, (std::vector{ip("192.0.2.1")}));
  EXPECT_EQ(service->load_balancer_ips, (std::vector{ip("203.0.113.1")}));
  EXPECT_TRUE(service->client_ip_affinity);
  EXPECT_EQ(service->affinity_timeout, std::chrono::seconds(60));
  EXPECT_TRUE(service->internal_traffic_local);
  EXPECT_TRUE(service->publish_not_ready);
  ASSERT_EQ(service->ports.size(), 3U);
  EXPECT_EQ(service->ports[0].port, Port{80});
  EXPECT_EQ(std::get<Port>(*service->ports[0].target), Port{8080});
  EXPECT_EQ(service->ports[0].node_port, Port{30080});
  EXPECT_EQ(std::get<std::string>(*service->ports[1].target), "web");
  EXPECT_FALSE(service->ports[2].target);
  EXPECT_EQ(service->ports[2].protocol, Protocol::udp);
}

TEST(DecodeService, DefaultsAsTheApiServerDoes) {
  const Service service = decoded("{ports: [{port: 80, targetPort: 0, nodePort: 0}], clusterIP: ''}");
  EXPECT_EQ(service.ns, "default");
  EXPECT_EQ(service.type, ServiceType::cluster_ip);
  EXPECT_TRUE(service.cluster_ips.empty());
  EXPECT_FALSE(service.ports[0].target);
  EXPECT_FALSE(service.ports[0].node_port);
  EXPECT_EQ(service.ports[0].protocol, Protocol::tcp);
  EXPECT_FALSE(service.client_ip_affinity);
  EXPECT_EQ(service.affinity_timeout, std::chrono::seconds(10800));
  EXPECT_TRUE(decoded("{clusterIP: None, clusterIPs: [None]}").cluster_ips.empty()) << "headless";
}

TEST(DecodeService, RefusesUnreadableFields) {
  const std::pair<const char*, const char*> slips[] = {
      {"{type: External}", "spec.type: Unsupported value: \"External\""},
      {"{clusterIP: 10.0.0}", "spec.clusterIP: Invalid value: \"10.0.0\""},
      {"{selector: {a: 1}}", "spec.selector.a: expected a string"},
      {"{ports: [{}]}", "spec.ports[0].port: Required value"},
      {"{ports: [{port: 0}]}", "spec.ports[0].port: Invalid value: 0"},
      {"{ports: [{port: 1, targetPort: 70000}]}", "spec.ports[0].targetPort: Invalid value: 70000"},
      {"{ports: [{port: 1, targetPort: A}]}", "spec.ports[0].targetPort: Invalid value: \"A\""},
      {"{ports: [{port: 1, nodePort: -1}]}", "spec.ports[0].nodePort: Invalid value: -1"},
      {"{sessionAffinity: Yes_}", "spec.sessionAffinity: Unsupported value"},
      {"{sessionAffinityConfig: {clientIP: {timeoutSeconds: 0}}}", "timeoutSeconds: Invalid value: 0"},
      {"{internalTrafficPolicy: local}", "spec.internalTrafficPolicy: Unsupported value: \"local\""},
      {"x", "spec: expected a mapping, found a string"},
  };
  for (const auto& [spec, message] : slips) EXPECT_NE(failure(spec).find(message), std::string::npos) << spec << "\n" << failure(spec);
}

}  // namespace
}  // namespace postern
