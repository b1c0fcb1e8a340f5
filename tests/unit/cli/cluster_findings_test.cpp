#include "cli/cluster_findings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/document.hpp"
#include "base/document_writer.hpp"

namespace postern::cli {
namespace {

using testing::AllOf;
using testing::Contains;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using Level = Finding::Level;

Node node(std::string_view yaml) { return parse_yaml(yaml, "test").value().front().root; }

std::vector<Node> nodes(std::initializer_list<std::string_view> texts) {
  std::vector<Node> out;
  for (const std::string_view text : texts) out.push_back(node(text));
  return out;
}

auto finding(Level level, std::string_view text) {
  return AllOf(Field(&Finding::level, level), Field(&Finding::text, HasSubstr(std::string(text))));
}
// Every error and warning says what to do.
auto remedied() { return testing::Each(testing::AnyOf(Field(&Finding::level, Level::ok), Field(&Finding::remedy, Not(IsEmpty())))); }

ClusterFacts healthy() {
  ClusterFacts facts;
  facts.mesh_namespace = "postern-system";
  facts.now = std::chrono::system_clock::now();
  facts.version = node("{gitVersion: v1.34.2}");
  facts.nodes = nodes({"{metadata: {name: n1}, status: {nodeInfo: {kubeletVersion: v1.33.0}}}"});
  facts.namespaces =
      nodes({"{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {postern.dev/inject: enabled, kubernetes.io/metadata.name: "
             "shop}}}",
             "{apiVersion: v1, kind: Namespace, metadata: {name: postern-system, labels: {kubernetes.io/metadata.name: postern-system}}}"});
  facts.pods =
      nodes({"{apiVersion: v1, kind: Pod, metadata: {name: control-1, namespace: postern-system, labels: {app.kubernetes.io/name: postern, "
             "app.kubernetes.io/component: control}}, spec: {containers: [{name: c, image: i}]}, status: {phase: Running, podIP: 10.0.0.9, "
             "podIPs: [{ip: 10.0.0.9}]}}",
             "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop, labels: {app: web}, annotations: {postern.dev/injected: "
             "'true'}}, "
             "spec: {initContainers: [{name: postern-proxy, image: 'proxy:1'}], containers: [{name: c, image: i}]}, "
             "status: {phase: Running, podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}]}}"});
  facts.policies = std::vector<Node>{};
  facts.settings = node("{data: {injection.yaml: 'image: proxy:1'}}");
  facts.deployment = node("{spec: {replicas: 1}, status: {readyReplicas: 1}}");
  facts.report.replicas = 1;
  facts.report.unconnected.emplace();
  return facts;
}

std::vector<Finding> of(void (*part)(const ClusterFacts&, std::vector<Finding>&), const ClusterFacts& facts) {
  std::vector<Finding> out;
  part(facts, out);
  EXPECT_THAT(out, remedied());
  return out;
}

TEST(ClusterFindings, VersionsThatKnowNoNativeSidecars) {
  ClusterFacts facts = healthy();
  EXPECT_THAT(of(add_platform, facts), testing::ElementsAre(finding(Level::ok, "v1.34.2")));
  facts.version = node("{gitVersion: v1.28.15-eks}");
  facts.nodes = nodes({"{metadata: {name: old}, status: {nodeInfo: {kubeletVersion: v1.28.3}}}"});
  const auto found = of(add_platform, facts);
  EXPECT_THAT(found, Contains(finding(Level::error, "v1.28.15-eks")));
  EXPECT_THAT(found, Contains(finding(Level::error, "node old")));
  facts.version = node("{gitVersion: nonsense}");
  EXPECT_THAT(of(add_platform, facts), Contains(finding(Level::error, "nonsense")));
}

TEST(ClusterFindings, PermissionsMatterMoreBeforeTheInstallation) {
  ClusterFacts facts = healthy();
  facts.permissions = {{"create", "apps", "deployments", "postern-system", false}, {"list", "", "pods", "", true}};
  std::vector<Finding> out;
  add_permissions(facts, true, out);
  EXPECT_THAT(out, testing::ElementsAre(finding(Level::error, "create deployments.apps in postern-system")));
  out.clear();
  add_permissions(facts, false, out);
  EXPECT_THAT(out, testing::ElementsAre(finding(Level::warning, "create deployments.apps in postern-system")));
}

TEST(ClusterFindings, PodSecurityConcernsNamespacesThatAreInjected) {
  ClusterFacts facts = healthy();
  facts.namespaces->push_back(node("{metadata: {name: other, labels: {pod-security.kubernetes.io/enforce: restricted}}}"));
  EXPECT_THAT(of(add_pod_security, facts), testing::ElementsAre(finding(Level::ok, "shop")));
  facts.namespaces->push_back(
      node("{metadata: {name: strict, labels: {postern.dev/inject: enabled, pod-security.kubernetes.io/enforce: baseline}}}"));
  EXPECT_THAT(of(add_pod_security, facts), testing::ElementsAre(finding(Level::error, "strict is baseline")));
}

TEST(ClusterFindings, TheControlPlane) {
  ClusterFacts facts = healthy();
  EXPECT_THAT(of(add_control_plane, facts), testing::ElementsAre(finding(Level::ok, "1 of 1")));
  facts.deployment = node("{spec: {replicas: 2}, status: {readyReplicas: 1}}");
  EXPECT_THAT(of(add_control_plane, facts), Contains(finding(Level::warning, "1 of 2")));
  facts.deployment = node("{spec: {replicas: 2}, status: {}}");
  EXPECT_THAT(of(add_control_plane, facts), Contains(finding(Level::error, "0 of 2")));
  facts.deployment = Error{"404 Not Found: deployments.apps \"postern-control\" not found", {}};
  EXPECT_THAT(of(add_control_plane, facts), Contains(finding(Level::error, "no Deployment")));
  facts.replicas.push_back({.pod = "control-1", .problem = "answered 503", .streams = {}, .authority = {}});
  EXPECT_THAT(of(add_control_plane, facts), Contains(finding(Level::warning, "control-1 could not be asked: answered 503")));
}

TEST(ClusterFindings, TheSigningCertificateEnds) {
  ClusterFacts facts = healthy();
  for (const auto& [expires, level] : {std::pair{"2020-01-01T00:00:00Z", Level::error}, std::pair{"2990-01-01T00:00:00Z", Level::ok}}) {
    facts.replicas = {{.pod = "control-1", .problem = {}, .streams = {}, .authority = node("{expires: '" + std::string(expires) + "'}")}};
    EXPECT_THAT(of(add_control_plane, facts), Contains(finding(level, expires)));
  }
}

TEST(ClusterFindings, WebhooksWithoutATrustedAuthority) {
  ClusterFacts facts = healthy();
  facts.mutating = Error{"404 Not Found", {}};
  facts.validating = node("{webhooks: [{name: a, clientConfig: {}}, {name: b, clientConfig: {caBundle: bm9uZQ==}}]}");
  facts.dry_run = ApiReply{.status = 500, .body = node("{message: 'failed calling webhook \"a\": connection refused'}")};
  const auto found = of(add_webhooks, facts);
  EXPECT_THAT(found, Contains(finding(Level::error, "MutatingWebhookConfiguration postern is not there")));
  EXPECT_THAT(found, Contains(finding(Level::error, "entry a: no caBundle")));
  EXPECT_THAT(found, Contains(finding(Level::error, "entry b: its caBundle cannot be read")));
  EXPECT_THAT(found, Contains(finding(Level::error, "connection refused")));
}

TEST(ClusterFindings, WhatTheDryRunSays) {
  ClusterFacts facts = healthy();
  facts.mutating = facts.validating = node("{webhooks: []}");
  facts.dry_run = ApiReply{.status = 201, .body = node("{metadata: {annotations: {postern.dev/injected: 'true'}}}")};
  EXPECT_THAT(of(add_webhooks, facts), Contains(finding(Level::ok, "came back with its sidecar")));
  facts.dry_run = ApiReply{.status = 201, .body = node("{metadata: {}}")};
  EXPECT_THAT(of(add_webhooks, facts), Contains(finding(Level::error, "without a sidecar")));
  facts.dry_run = ApiReply{.status = 403, .body = node("{message: 'User \"x\" cannot create resource \"pods\"'}")};
  EXPECT_THAT(of(add_webhooks, facts), Contains(finding(Level::warning, "you may not create pods")));
  facts.dry_run = ApiReply{.status = 403, .body = node("{message: 'violates PodSecurity \"baseline:latest\"'}")};
  EXPECT_THAT(of(add_webhooks, facts), Contains(finding(Level::warning, "violates PodSecurity")));
}

TEST(ClusterFindings, SidecarsThatAreMissingOldOrAlone) {
  ClusterFacts facts = healthy();
  EXPECT_THAT(of(add_sidecars, facts), testing::ElementsAre(finding(Level::ok, "1 pod(s) have a sidecar, all of them proxy:1")));
  facts.pods->push_back(node("{metadata: {name: late, namespace: shop}, status: {phase: Running}}"));
  facts.pods->push_back(node("{metadata: {name: out, namespace: shop, labels: {postern.dev/inject: disabled}}}"));
  facts.pods->push_back(node("{metadata: {name: done, namespace: shop}, status: {phase: Succeeded}}"));
  facts.settings = node("{data: {injection.yaml: 'image: proxy:2'}}");
  facts.report.unconnected->insert("shop/web");
  const auto found = of(add_sidecars, facts);
  EXPECT_THAT(found, Contains(finding(Level::error, "1 pod(s) should have a sidecar and have none: shop/late")));
  EXPECT_THAT(found, Contains(finding(Level::warning, "have the sidecar proxy:1, and proxy:2 is injected now: shop/web")));
  EXPECT_THAT(found, Contains(finding(Level::error, "no stream to the control plane, and enforce the last policies they had: shop/web")));
}

TEST(ClusterFindings, PoliciesThatAreNotInForce) {
  ClusterFacts facts = healthy();
  facts.report.policies["shop/api"].pods["shop/web"] = {.state = "lagging", .since = {}, .reason = "an update is under way"};
  EXPECT_THAT(of(add_policies, facts), Contains(finding(Level::error, "shop/api")));
  facts.report.policies["shop/api"].pods["shop/web"].state = "enforced";
  EXPECT_THAT(of(add_policies, facts), testing::ElementsAre(finding(Level::ok, "1 policies are in force")));
  facts.report.replicas = 0;
  EXPECT_THAT(of(add_policies, facts), testing::ElementsAre(finding(Level::warning, "not known")));
}

constexpr std::string_view isolating =
    "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: closed, namespace: shop, annotations: {postern.dev/mode: "
    "audit}}, "
    "spec: {podSelector: {}, policyTypes: [Egress]}}";

TEST(ClusterFindings, SidecarsThatANetworkPluginCutsOff) {
  ClusterFacts facts = healthy();
  EXPECT_THAT(of(add_egress, facts), testing::ElementsAre(finding(Level::ok, "no policy")));
  facts.policies = nodes({isolating});
  auto found = of(add_egress, facts);
  ASSERT_THAT(found, testing::ElementsAre(finding(Level::warning, "no egress rule of closed")));
  EXPECT_THAT(found.front().text, HasSubstr("web")) << "audit is nothing to a network plugin";
  EXPECT_THAT(found.front().remedy, AllOf(HasSubstr("namespace: shop"), HasSubstr("port: 15010"), HasSubstr("port: 15012")));
  facts.report.unconnected->insert("shop/web");
  EXPECT_THAT(of(add_egress, facts), testing::ElementsAre(finding(Level::error, "no egress rule of closed")));
}

// The remedy is one: applied beside what isolates the pods, it opens the way.
TEST(ClusterFindings, TheRemedyOpensTheWay) {
  ClusterFacts facts = healthy();
  facts.policies = nodes({isolating});
  const std::string remedy = of(add_egress, facts).front().remedy;
  facts.policies->push_back(node(remedy));
  EXPECT_THAT(of(add_egress, facts), testing::ElementsAre(finding(Level::ok, "no policy")));
}

TEST(ClusterFindings, BeforeTheInstallationNothingIsThere) {
  ClusterFacts facts = healthy();
  facts.pods = std::vector<Node>{};
  facts.policies = nodes({isolating});
  const auto found = findings_before(facts);
  EXPECT_THAT(found, Contains(finding(Level::warning, "no egress rule of closed")));
  EXPECT_THAT(found, Not(Contains(Field(&Finding::topic, "webhooks"))));
}

}  // namespace
}  // namespace postern::cli
