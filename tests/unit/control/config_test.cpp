#include "control/config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace postern {
namespace {

using testing::HasSubstr;

Result<ControlConfig> parse(std::string_view yaml) { return control_config_table().parse(yaml, "control.yaml", {}); }

ControlConfig complete() { return *parse("identity: {certificate: a, key: b, bundle: c}\nmesh: {trustDomain: example.org}\n"); }

TEST(ControlConfig, ReadsWhatItPrints) {
  const auto config = parse(R"(
listen: {stream: 1, health: 2, adminSocket: /run/a.sock}
identity: {certificate: a, key: b, bundle: c}
federatedBundles: [{trustDomain: a.example, bundle: /a}, {trustDomain: b.example, endpoint: "https://b.example", profile: https_web}]
mesh: {trustDomain: example.org, defaultPolicy: deny, mtls: permissive, audit: true, clusterCidrs: ["10.0.0.0/8"]}
meshConfigMap: {namespace: mesh, name: settings}
kubeconfig: /k
replica: one
limits: {streams: 5, lookupsPerSecond: 7, idleTimeout: 9s}
publish: {quiet: 1ms, longest: 10ms}
logLevel: debug
)");
  ASSERT_TRUE(config) << config.error().text();
  EXPECT_EQ(config->listen.health.number, 2);
  EXPECT_EQ(config->config_map.name, "settings");
  EXPECT_EQ(config->limits.lookups_per_second, 7U);
  const std::string printed = control_config_table().print(*config);
  const auto again = parse(printed);
  ASSERT_TRUE(again) << again.error().text();
  EXPECT_EQ(control_config_table().print(*again), printed);
}

TEST(ControlConfig, NamesTheNearestField) {
  const auto refused = parse("listen:\n  steam: 5\n");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("control.yaml:2:10: listen.steam: unknown field; did you mean stream?"));
}

TEST(ControlConfig, NeedsIdentityTrustDomainAndPortsOfItsOwn) {
  EXPECT_TRUE(validate(complete()));
  ControlConfig config = complete();
  config.identity.key.clear();
  EXPECT_THAT(validate(config).error().text(), HasSubstr("identity.key"));
  config = complete();
  config.mesh.trust_domain = {};
  EXPECT_THAT(validate(config).error().text(), HasSubstr("mesh.trustDomain"));
  config = complete();
  config.listen.health = config.listen.stream;
  EXPECT_THAT(validate(config).error().text(), HasSubstr("listen.health"));
  config = complete();
  config.publish.longest = config.publish.quiet - std::chrono::milliseconds{1};
  EXPECT_THAT(validate(config).error().text(), HasSubstr("publish.longest"));
}

TEST(ControlConfig, FederatesWithOthersOnly) {
  ControlConfig config = complete();
  config.federated_bundles = parse("federatedBundles: [{trustDomain: example.org, bundle: /a}]")->federated_bundles;
  EXPECT_THAT(validate(config).error().text(), HasSubstr("federatedBundles: example.org is this mesh's own trust domain"));
  EXPECT_THAT(parse("federatedBundles: [{trustDomain: a.example, endpoint: 'http://a.example', profile: https_web}]").error().text(),
              HasSubstr("control.yaml:1:19: federatedBundles: item 1: endpoint: a bundle is fetched over TLS only; write https://"));
}

TEST(ControlConfig, IsAllInTheDocumentation) {
  std::ifstream file(std::string(POSTERN_SOURCE_DIR) + "/docs/control.md");
  std::stringstream text;
  text << file.rdbuf();
  const ControlConfig defaults;
  for (const auto& field : control_config_table().fields) {
    EXPECT_THAT(text.str(), HasSubstr("| `" + std::string(field.path) + "` | " + field.type + " | `" + field.print(defaults) + "` |"))
        << field.path;
  }
}

}  // namespace
}  // namespace postern
