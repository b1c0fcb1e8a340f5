#include "control/mesh_config.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using testing::HasSubstr;

MeshConfig defaults() {
  MeshConfig config;
  config.settings.trust_domain = TrustDomain::parse("cluster.local").value();
  config.settings.cluster_cidrs = {Cidr::parse("10.0.0.0/8").value()};
  return config;
}

Result<MeshConfig> decode(std::string_view yaml) {
  const auto documents = parse_yaml(yaml, "test");
  return decode_mesh_config(documents.value().at(0).root, defaults());
}

std::string error_of(std::string_view yaml) {
  const auto config = decode(yaml);
  return config ? "accepted" : config.error().text();
}

TEST(MeshConfig, WhatIsNotNamedIsAsInTheDefaults) {
  EXPECT_EQ(decode("kind: ConfigMap").value(), defaults());
  EXPECT_EQ(decode("data: {mesh.yaml: ''}").value(), defaults());
  const MeshConfig config = decode("data: {mesh.yaml: 'audit: true', epoch: restored-1}").value();
  EXPECT_TRUE(config.settings.audit);
  EXPECT_EQ(config.settings.cluster_cidrs, defaults().settings.cluster_cidrs);
  EXPECT_EQ(config.epoch, "restored-1");
}

TEST(MeshConfig, ReadsEveryField) {
  const MeshConfig config = decode(R"(
data:
  mesh.yaml: |
    trustDomain: example.org
    defaultPolicy: deny
    nodeTraffic: none
    mtls: permissive
    audit: true
    clusterCidrs: [172.16.0.0/12, "fd00::/8"]
    denied: {serials: ["4b:2f", "0A", "004B2F"], spiffeIds: ["spiffe://example.org/b", "spiffe://example.com/a"]}
)")
                                .value();
  EXPECT_EQ(config.settings.trust_domain.text(), "example.org");
  EXPECT_EQ(config.settings.default_policy, DefaultPolicy::deny);
  EXPECT_EQ(config.settings.node_traffic, NodeTraffic::none);
  EXPECT_EQ(config.settings.mtls, MtlsMode::permissive);
  EXPECT_TRUE(config.settings.audit);
  EXPECT_EQ(config.settings.cluster_cidrs.size(), 2U);
  EXPECT_EQ(config.settings.denied, (DeniedIdentities{{"0A", "4B2F"}, {"spiffe://example.com/a", "spiffe://example.org/b"}}));
}

TEST(MeshConfig, RefusesNamingTheFieldAndWhatIsValid) {
  EXPECT_THAT(error_of("data: {mesh.yaml: 'defaultPolicy: open'}"), HasSubstr("defaultPolicy"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'defaultPolicy: open'}"), HasSubstr("one of kubernetes, deny"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'mtls: strikt'}"), HasSubstr("did you mean strict?"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'defaultPolcy: deny'}"), HasSubstr("defaultPolicy"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'audit: perhaps'}"), HasSubstr("true or false"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'clusterCidrs: [10.0.0.0/40]'}"), HasSubstr("clusterCidrs"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'trustDomain: \"\"'}"), HasSubstr("trustDomain"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'denied: {serials: [\"0x4B\"]}'}"), HasSubstr("denied.serials: item 1"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'denied: {serials: [1234]}'}"), HasSubstr("in quotes"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'denied: {spiffeIds: [web]}'}"), HasSubstr("denied.spiffeIds: item 1"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'denied: {serial: [\"4B\"]}'}"), HasSubstr("did you mean serials?"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'denied: [\"4B\"]'}"), HasSubstr("denied"));
  EXPECT_THAT(error_of("data: {mesh.yaml: 'nodeAddresses: [10.0.0.1]'}"), HasSubstr("nodeAddresses"));
}

TEST(MeshConfig, RefusesWhatWouldBeSilentlyWithoutEffect) {
  EXPECT_THAT(error_of("data: {mesh.yml: 'audit: true'}"), HasSubstr("expected one of mesh.yaml, epoch"));
  EXPECT_THAT(error_of("binaryData: {mesh.yaml: YXVkaXQ6IHRydWU=}"), HasSubstr("binaryData"));
  EXPECT_THAT(error_of("data: [mesh.yaml]"), HasSubstr("mapping"));
  EXPECT_THAT(error_of("data: {epoch: 'a b'}"), HasSubstr("epoch"));
  EXPECT_THAT(error_of("data: {epoch: 3}"), HasSubstr("expected a string"));
}

}  // namespace
}  // namespace postern
