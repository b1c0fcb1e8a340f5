#include "authz/manifests.hpp"

#include <gtest/gtest.h>

#include <algorithm>

namespace postern {
namespace {

std::vector<Document> documents(std::string_view yaml, std::string_view source = "m.yaml") {
  auto parsed = parse_yaml(yaml, source);
  if (!parsed) {
    ADD_FAILURE() << parsed.error().text();
    return {};
  }
  return *std::move(parsed);
}

Manifests decoded(std::string_view yaml) {
  auto manifests = decode_manifests(documents(yaml));
  if (!manifests) {
    ADD_FAILURE() << manifests.error().text();
    return {};
  }
  return *std::move(manifests);
}

std::string failure(std::string_view yaml) {
  const auto manifests = decode_manifests(documents(yaml));
  return manifests ? "accepted" : manifests.error().text();
}

constexpr std::string_view kCluster = R"(
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: p, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Node
metadata: {name: node-1}
)";

TEST(DecodeManifests, CollectsEveryKindItReads) {
  const ClusterView cluster = decoded(kCluster).cluster;
  EXPECT_EQ(cluster.policies.count({"shop", "p"}), 1U);
  EXPECT_EQ(cluster.pods.count({"shop", "web"}), 1U);
  EXPECT_EQ(cluster.services.count({"shop", "web"}), 1U);
  EXPECT_EQ(cluster.nodes.count("node-1"), 1U);
  EXPECT_EQ(cluster.namespaces.at("shop").labels, (Labels{{"kubernetes.io/metadata.name", "shop"}, {"team", "a"}}));
  EXPECT_TRUE(decoded(kCluster).warnings.empty());
}

TEST(DecodeManifests, GivesTheSameInAnyOrder) {
  std::vector<Document> all = documents(kCluster);
  const ClusterView forward = decode_manifests(all).value().cluster;
  std::reverse(all.begin(), all.end());
  EXPECT_EQ(decode_manifests(all).value().cluster, forward);
}

TEST(DecodeManifests, ReadsLists) {
  const ClusterView cluster = decoded(R"(
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Pod, metadata: {name: a}}
- apiVersion: v1
  kind: List
  items: [{apiVersion: v1, kind: Pod, metadata: {name: b}}]
- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}
---
apiVersion: v1
kind: PodList
items: [{metadata: {name: c}}, {metadata: {name: d}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicyList
items: [{metadata: {name: p}}]
---
apiVersion: v1
kind: List
items: []
)")
                                  .cluster;
  EXPECT_EQ(cluster.pods.size(), 4U);
  EXPECT_EQ(cluster.policies.size(), 1U);
  EXPECT_NE(failure("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Pod, metadata: {name: A}}\n")
                .find("m.yaml:4: items[0].metadata.name: Invalid"),
            std::string::npos);
  EXPECT_NE(failure("apiVersion: v1\nkind: List\nitems: [{metadata: {name: a}}]\n").find("items[0].kind: Required value"),
            std::string::npos);
}

TEST(DecodeManifests, LeavesOtherKindsAlone) {
  const ClusterView cluster = decoded(
                                  "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: A B}\n---\napiVersion: v1\nkind: "
                                  "ConfigMap\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\n")
                                  .cluster;
  EXPECT_EQ(cluster, ClusterView{});
}

TEST(DecodeManifests, NamesPoliciesThatItDoesNotRead) {
  const Manifests manifests = decoded(
      "apiVersion: policy.networking.k8s.io/v1alpha1\nkind: AdminNetworkPolicy\n---\napiVersion: projectcalico.org/v3\nkind: "
      "NetworkPolicy\n");
  ASSERT_EQ(manifests.warnings.size(), 2U);
  EXPECT_NE(manifests.warnings[0].text().find("m.yaml:1: this AdminNetworkPolicy of"), std::string::npos) << manifests.warnings[0].text();
  EXPECT_TRUE(manifests.cluster.policies.empty());
}

// A policy that is skipped for a slip in its head would leave its pods open.
TEST(DecodeManifests, RefusesAHeadThatIsAlmostAPolicy) {
  EXPECT_NE(failure("apiVersion: networking.k8s.io/v1\nkind: NetworkPolcy\n").find("m.yaml:2: kind: no kind \"NetworkPolcy\""),
            std::string::npos);
  EXPECT_NE(failure("apiVersion: networking.k8s.io/v1beta1\nkind: NetworkPolicy\n").find("apiVersion: expected networking.k8s.io/v1"),
            std::string::npos);
  EXPECT_NE(failure("apiVersion: extensions/v1beta1\nkind: NetworkPolicy\n").find("apiVersion: expected networking.k8s.io/v1"),
            std::string::npos);
  EXPECT_NE(failure("apiVersion: v1\nkind: NetworkPolicy\n").find("apiVersion: expected networking.k8s.io/v1"), std::string::npos);
  EXPECT_NE(failure("kind: NetworkPolicy\n").find("apiVersion: Required value"), std::string::npos);
  EXPECT_NE(failure("apiVersion: networking.k8s.io/v1\n").find("kind: Required value"), std::string::npos);
  EXPECT_NE(failure("apiVersion: v2\nkind: Pod\n").find("apiVersion: expected v1"), std::string::npos);
  EXPECT_NE(failure("- a\n").find("expected a Kubernetes object, found a list"), std::string::npos);
  EXPECT_NE(failure("text\n").find("expected a Kubernetes object, found a string"), std::string::npos);
}

TEST(DecodeManifests, RefusesTheSameObjectTwiceNamingBothPlaces) {
  std::vector<Document> all = documents("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n", "a.yaml");
  const std::vector<Document> again = documents("\n\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: default}\n", "b.yaml");
  all.insert(all.end(), again.begin(), again.end());
  const auto manifests = decode_manifests(all);
  ASSERT_FALSE(manifests);
  EXPECT_EQ(manifests.error().text(), "b.yaml:3: Pod default/web stands here a second time; the first is at a.yaml:1: remove one of them");
  EXPECT_EQ(
      failure("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: web, namespace: shop}\n"),
      "accepted");
}

TEST(DecodeManifests, OneUnreadableObjectFailsTheWholeLoad) {
  EXPECT_EQ(failure("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n---\napiVersion: networking.k8s.io/v1\nkind: "
                    "NetworkPolicy\nmetadata: {name: p}\nspec: {ingress: [{form: []}]}\n"),
            "m.yaml:8: spec.ingress[0].form: unknown field \"form\"; expected one of ports, from");
}

TEST(DecodeManifests, AddsTheNamespacesThatNobodyWroteDown) {
  const Manifests manifests =
      decoded("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: db}\n");
  EXPECT_EQ(manifests.cluster.namespaces.at("default").labels, (Labels{{"kubernetes.io/metadata.name", "default"}}));
  ASSERT_EQ(manifests.warnings.size(), 1U);
  EXPECT_NE(manifests.warnings[0].text().find("there is no manifest of the namespace \"default\""), std::string::npos);
}

TEST(DecodeManifests, TheNameLabelOfANamespaceIsItsName) {
  const ClusterView cluster =
      decoded("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, labels: {kubernetes.io/metadata.name: other}}\n").cluster;
  EXPECT_EQ(cluster.namespaces.at("shop").labels.at("kubernetes.io/metadata.name"), "shop");
}

TEST(DecodeManifests, WarnsOfWhatTheProxyDoesNotEnforce) {
  const Manifests manifests = decoded(
      "apiVersion: v1\nkind: Namespace\nmetadata: {name: default}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: "
      "{name: p}\n"
      "spec: {egress: [{ports: [{protocol: UDP, port: 53}]}]}\n");
  ASSERT_EQ(manifests.warnings.size(), 1U);
  EXPECT_EQ(manifests.warnings[0].text(),
            "m.yaml:8: spec.egress[0].ports[0]: UDP is not enforced by the proxy, which only sees TCP; a network plugin has to");
}

TEST(DecodeManifests, WarnsOfReplacesThatReplacesNothing) {
  const auto warnings = [](const std::string& mode, const std::string& name) {
    const Manifests manifests =
        decoded("apiVersion: v1\nkind: Namespace\nmetadata: {name: shop, annotations: {postern.dev/enforcement: " + mode +
                "}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: refined, namespace: shop, annotations: "
                "{postern.dev/replaces: " +
                name + "}}\n---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: wide, namespace: shop}\n");
    std::string text;
    for (const Warning& warning : manifests.warnings) text += warning.text();
    return text;
  };
  const std::string where = "m.yaml:7: metadata.annotations[postern.dev/replaces]: ";
  EXPECT_EQ(warnings("audit", "wide"), "");
  EXPECT_EQ(warnings("enforce", "wide"),
            where + "means something only in audit: with both policies in force they add up; delete \"wide\" for this one to replace it");
  EXPECT_EQ(warnings("audit", "gone"), where + "there is no NetworkPolicy \"gone\" in namespace \"shop\"");
}

}  // namespace
}  // namespace postern
