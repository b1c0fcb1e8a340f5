#include "cli/cluster_findings.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/base64.hpp"
#include "base/document.hpp"
#include "base/document_writer.hpp"
#include "certs/certificate_builder.hpp"
#include "cli/json_text.hpp"
#include "cli/node_path.hpp"
#include "cli/sidecar_report.hpp"

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
  facts.replicas = {{.pod = "control-1",
                     .problem = {},
                     .streams = node("{version: " POSTERN_VERSION ", streams: [{namespace: shop, pod: web, version: " POSTERN_VERSION
                                     ", behind_seconds: 0}]}"),
                     .authority = {}}};
  facts.report.replicas = 1;
  facts.report.unconnected.emplace();
  return facts;
}

std::string certificate_until(SystemTime not_after) {
  const KeyPtr key = new_p256_key();
  const X509Ptr made = unsigned_certificate("CN", "test", nullptr, key.get(), not_after - std::chrono::hours{24 * 365}, not_after);
  EXPECT_GT(X509_sign(made.get(), key.get(), EVP_sha256()), 0);
  return pem_of(made.get());
}

// What a replica says of the stream of shop/web.
void stream_says(ClusterFacts& facts, const std::string& fields) {
  facts.replicas.front().streams = node("{version: " POSTERN_VERSION ", streams: [{namespace: shop, pod: web, " + fields + "}]}");
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

TEST(ClusterFindings, AuthoritiesOfWebhooksThatEnd) {
  using std::chrono::hours;
  ClusterFacts facts = healthy();
  facts.dry_run = ApiReply{.status = 201, .body = node("{metadata: {annotations: {postern.dev/injected: 'true'}}}")};
  const auto until = [&](hours left) {
    const auto now = std::chrono::time_point_cast<std::chrono::seconds>(facts.now);
    const std::string pem = certificate_until(now + left);
    facts.mutating = facts.validating = node("{webhooks: [{name: a, clientConfig: {caBundle: " + to_base64(pem) + "}}]}");
    return of(add_webhooks, facts);
  };
  EXPECT_THAT(until(hours{-1}), Contains(finding(Level::error, "entry a: every authority of its caBundle has expired")));
  EXPECT_THAT(until(hours{24}), Contains(finding(Level::warning, "entry a: its authority ends at")));
  EXPECT_THAT(until(hours{24 * 60}), Contains(finding(Level::ok, "both webhook configurations name a valid authority")));
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
  EXPECT_THAT(of(add_sidecars, facts),
              testing::ElementsAre(finding(Level::ok, "1 pod(s) have a sidecar, all of them proxy:1, of version " POSTERN_VERSION
                                                      " as postern-control, with the newest policies")));
  facts.pods->push_back(node("{metadata: {name: late, namespace: shop}, status: {phase: Running}}"));
  facts.pods->push_back(node("{metadata: {name: out, namespace: shop, labels: {postern.dev/inject: disabled}}}"));
  facts.pods->push_back(node("{metadata: {name: done, namespace: shop}, status: {phase: Succeeded}}"));
  facts.settings = node("{data: {injection.yaml: 'image: proxy:2'}}");
  facts.report.unconnected->insert("shop/web");
  facts.replicas.front().streams = node("{version: " POSTERN_VERSION ", streams: []}");
  facts.policy_ages.emplace("shop/web", 512.4);
  const auto found = of(add_sidecars, facts);
  EXPECT_THAT(found, Contains(finding(Level::error, "1 pod(s) should have a sidecar and have none: shop/late")));
  EXPECT_THAT(found, Contains(finding(Level::warning, "have the sidecar proxy:1, and proxy:2 is injected now: shop/web")));
  EXPECT_THAT(found,
              Contains(finding(Level::error,
                               "no stream to the control plane, and enforce the last policies they had: shop/web (confirmed 512 s ago)")));
}

TEST(ClusterFindings, SidecarsOfAnotherVersionOrBehind) {
  ClusterFacts facts = healthy();
  stream_says(facts, "version: 0.0.9, behind_seconds: 0");
  EXPECT_THAT(of(add_sidecars, facts),
              testing::ElementsAre(finding(Level::warning, "1 sidecar(s) are of version 0.0.9, and postern-control of")));
  stream_says(facts, "version: " POSTERN_VERSION ", behind_seconds: 3");
  EXPECT_THAT(of(add_sidecars, facts), testing::ElementsAre(finding(Level::ok, "1 pod(s)"))) << "an update is under way";
  stream_says(facts, "version: " POSTERN_VERSION ", behind_seconds: 61");
  EXPECT_THAT(of(add_sidecars, facts), testing::ElementsAre(finding(Level::error, "do not enforce the newest policies: shop/web (61 s)")));
  stream_says(facts, "version: " POSTERN_VERSION ", behind_seconds: 1, refusal: does not fit");
  EXPECT_THAT(of(add_sidecars, facts), testing::ElementsAre(finding(Level::error, "shop/web (refused 1 s ago: does not fit)")));
  stream_says(facts, "version: " POSTERN_VERSION ", waiting_for: the pod itself");
  EXPECT_THAT(of(add_sidecars, facts), testing::ElementsAre(finding(Level::error, "shop/web (the pod itself)")));
}

TEST(ClusterFindings, EverySidecarInATable) {
  ClusterFacts facts = healthy();
  stream_says(facts, "version: 0.0.9, behind_seconds: 12");
  facts.pods->push_back(
      node("{metadata: {name: alone, namespace: shop, annotations: {postern.dev/injected: 'true'}}, spec: {initContainers: [{name: "
           "postern-proxy, "
           "image: 'proxy:1'}]}, status: {phase: Running}}"));
  facts.policy_ages.emplace("shop/alone", Error{"connection refused", {}});
  EXPECT_EQ(tabulated(sidecars_node(sidecars_of(facts))),
            "pod         image    version  state         policyAgeSeconds  reason\n"
            "shop/alone  proxy:1  -        disconnected  -                 connection refused\n"
            "shop/web    proxy:1  0.0.9    behind        12                -\n");
  facts.policy_ages.insert_or_assign("shop/alone", 90.0);
  EXPECT_EQ(integer_at(sidecars_node(sidecars_of(facts)).items.front(), {"policyAgeSeconds"}), 90);
}

TEST(ClusterFindings, AGaugeOfAPage) {
  constexpr std::string_view page =
      "# TYPE postern_policy_age_seconds gauge\npostern_policy_age_seconds_sum 7\npostern_policy_age_seconds 12.5\nx nan\n";
  EXPECT_EQ(gauge_in(page, "postern_policy_age_seconds"), 12.5);
  EXPECT_EQ(gauge_in(page, "postern_policy"), std::nullopt);
  EXPECT_EQ(gauge_in(page, "x"), std::nullopt);
  EXPECT_EQ(gauge_in("", "x"), std::nullopt);
}

TEST(ClusterFindings, VersionsOfTheControlPlane) {
  ClusterFacts facts = healthy();
  EXPECT_THAT(of(add_versions, facts), testing::ElementsAre(finding(Level::ok, "are of version " POSTERN_VERSION)));
  facts.replicas.front().streams = node("{version: 9.9.9, streams: []}");
  EXPECT_THAT(of(add_versions, facts), testing::ElementsAre(finding(Level::warning, "postern-control is of version 9.9.9 (control-1)")));
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

TEST(ClusterFindings, SidecarsThatCannotResolveNames) {
  ClusterFacts facts = healthy();
  facts.pods->push_back(
      node("{apiVersion: v1, kind: Pod, metadata: {name: dns, namespace: kube-system, labels: {k8s-app: kube-dns}}, spec: "
           "{containers: [{name: c, image: i}]}, status: {phase: Running, podIP: 10.0.0.53, podIPs: [{ip: 10.0.0.53}]}}"));
  const auto with_ports = [&](const std::string& dns) {
    facts.policies = nodes({isolating});
    facts.policies->push_back(
        node("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: some, namespace: shop}, spec: "
             "{podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 15010}, {port: 15012}" +
             dns + "]}]}}"));
    return of(add_egress, facts);
  };
  const auto found = with_ports(", {port: 53}");
  ASSERT_THAT(found, testing::ElementsAre(finding(Level::warning, "off from the cluster's DNS: no egress rule of closed, some")))
      << "TCP only";
  EXPECT_THAT(found.front().remedy, HasSubstr("{protocol: UDP, port: 53}"));
  EXPECT_THAT(with_ports(", {protocol: UDP, port: 53}"), testing::ElementsAre(finding(Level::ok, "no policy")));
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
