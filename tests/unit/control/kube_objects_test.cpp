#include "control/kube_objects.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using testing::HasSubstr;
using testing::Not;

const std::string kMetadata =
    R"("metadata":{"name":"web","namespace":"shop","uid":"u1","resourceVersion":"7","generation":3,"managedFields":[{"x":1}])";

// Reads one object as the reflector would; the store is a single place.
class KubeObjectsTest : public testing::Test {
 protected:
  ObjectReader::Outcome read(ObjectReader& reader, WatchedKind kind, const std::string& json) {
    const auto node = parse_object(kind, json, "test");
    EXPECT_TRUE(node) << node.error().text();
    const auto identity = identity_of(*node);
    EXPECT_TRUE(identity) << identity.error().text();
    auto outcome = reader.read(*node, *identity);
    if (outcome.object) stored_ = outcome.object;
    return outcome;
  }
  ObjectReader reader(WatchedKind kind) {
    return {kind, MeshConfig{}, [this](WatchedKind, const ObjectKey&) { return stored_; }};
  }
  std::string policy(const std::string& spec, const std::string& uid = "u1", const std::string& annotations = "{}") {
    return R"({"metadata":{"name":"web","namespace":"shop","generation":3,"uid":")" + uid + R"(","resourceVersion":"7","annotations":)" +
           annotations + R"(},"spec":)" + spec + "}";
  }
  std::optional<WatchedObject> stored_;
};

constexpr const char* kGood = R"({"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress"],"ingress":[{}]})";
constexpr const char* kBad = R"({"podSelector":{"matchLabels":{"app":"db"}},"policyTypes":["Ingress"],"ingress":[{"fromm":[]}]})";

TEST_F(KubeObjectsTest, LeavesOutWhatNobodyReads) {
  const auto node = parse_object(
      WatchedKind::pods,
      R"({"metadata":{"name":"a","labels":{"spec.volumes":"kept"},"managedFields":[{"f:x":{}}],"ownerReferences":[{"a":"b"}],)"
      R"("annotations":{"kubectl.kubernetes.io/last-applied-configuration":"long","volumes":"kept"}},)"
      R"("spec":{"volumes":[{"a":[1,{"b":"c"}]}],"containers":[{"env":[{"name":"X"}],"ports":[{"containerPort":80}]}],"nodeName":"n"},)"
      R"("status":{"containerStatuses":[[]],"phase":"Running"}})",
      "test");
  ASSERT_TRUE(node) << node.error().text();
  const Node* metadata = node->find("metadata");
  EXPECT_EQ(metadata->find("managedFields"), nullptr);
  EXPECT_EQ(metadata->find("ownerReferences"), nullptr);
  EXPECT_EQ(metadata->find("annotations")->fields.size(), 1U);
  EXPECT_EQ(metadata->find("labels")->find("spec.volumes")->scalar, "kept");
  const Node* spec = node->find("spec");
  EXPECT_EQ(spec->find("volumes"), nullptr);
  EXPECT_EQ(spec->find("containers")->items[0].find("env"), nullptr);
  EXPECT_EQ(spec->find("containers")->items[0].find("ports")->items[0].find("containerPort")->integer, 80);
  EXPECT_EQ(spec->find("nodeName")->scalar, "n");
  EXPECT_EQ(node->find("status")->find("phase")->scalar, "Running");
}

TEST_F(KubeObjectsTest, RefusesWhatIsNoJsonObject) {
  for (const char* text : {"", "{", "{}}", "{\"a\":1,\"a\":2}", "{\"a\":\"\xff\"}", "{} {}"}) {
    EXPECT_FALSE(parse_object(WatchedKind::pods, text, "test")) << text;
  }
  std::string deep;
  for (int i = 0; i < 200; ++i) deep += "{\"a\":";
  EXPECT_FALSE(parse_object(WatchedKind::pods, deep + "1" + std::string(200, '}'), "test"));
}

TEST_F(KubeObjectsTest, AnIdentityNeedsAVersion) {
  for (const char* text : {"{}", R"({"metadata":{"name":"a"}})", R"({"metadata":{"name":"a","resourceVersion":"x"}})",
                           R"({"metadata":{"resourceVersion":5}})"}) {
    EXPECT_FALSE(identity_of(*parse_object(WatchedKind::pods, text, "test"))) << text;
  }
}

TEST_F(KubeObjectsTest, ReadsEveryKind) {
  auto pods = reader(WatchedKind::pods);
  EXPECT_TRUE(
      read(pods, WatchedKind::pods, "{" + kMetadata + R"(},"spec":{"nodeName":"n"},"status":{"phase":"Running","podIP":"10.1.0.1"}})")
          .object);
  auto nodes = reader(WatchedKind::nodes);
  EXPECT_TRUE(read(nodes, WatchedKind::nodes, R"({"metadata":{"name":"n","resourceVersion":"7"},"status":{"conditions":[{}]}})").object);
  auto namespaces = reader(WatchedKind::namespaces);
  EXPECT_TRUE(
      read(namespaces, WatchedKind::namespaces, R"({"metadata":{"name":"n","resourceVersion":"7"},"spec":{"finalizers":["kubernetes"]}})")
          .object);
  auto services = reader(WatchedKind::services);
  EXPECT_TRUE(
      read(services, WatchedKind::services, "{" + kMetadata + R"(},"spec":{"clusterIP":"10.96.0.7","ports":[{"port":80}]}})").object);
  auto slices = reader(WatchedKind::endpoint_slices);
  EXPECT_TRUE(
      read(slices, WatchedKind::endpoint_slices, "{" + kMetadata + R"(},"addressType":"IPv4","endpoints":null,"ports":null})").object);
  auto policies = reader(WatchedKind::network_policies);
  EXPECT_TRUE(read(policies, WatchedKind::network_policies, "{" + kMetadata + R"(},"spec":{"podSelector":{}}})").object);
}

TEST_F(KubeObjectsTest, AnUnreadablePolicyIsolatesThePodsItSelects) {
  auto policies = reader(WatchedKind::network_policies);
  const auto outcome = read(policies, WatchedKind::network_policies, policy(kBad));
  ASSERT_TRUE(outcome.object && outcome.unreadable);
  EXPECT_THAT(outcome.unreadable->reason,
              testing::AllOf(HasSubstr("spec.ingress[0].fromm"), HasSubstr("unknown field"), Not(HasSubstr("object:1"))));
  EXPECT_EQ(outcome.unreadable->uid, "u1");
  const auto& stand_in = std::get<NetworkPolicy>(*outcome.object);
  EXPECT_EQ(stand_in.ns, "shop");
  EXPECT_EQ(stand_in.name, "web");
  EXPECT_EQ(stand_in.generation, 3);
  EXPECT_TRUE(stand_in.isolates_ingress && stand_in.isolates_egress);
  EXPECT_TRUE(stand_in.ingress.empty() && stand_in.egress.empty());
  EXPECT_TRUE(matches(stand_in.pod_selector, Labels{{"app", "db"}}));
  EXPECT_FALSE(matches(stand_in.pod_selector, Labels{{"app", "web"}}));
}

TEST_F(KubeObjectsTest, AnUnreadableSelectorIsolatesTheNamespace) {
  auto policies = reader(WatchedKind::network_policies);
  const auto outcome =
      read(policies, WatchedKind::network_policies, policy(R"({"podSelector":{"matchExpressions":[{"key":"a","operator":"Gt"}]}})"));
  ASSERT_TRUE(outcome.object && outcome.unreadable);
  EXPECT_TRUE(matches(std::get<NetworkPolicy>(*outcome.object).pod_selector, Labels{}));
}

TEST_F(KubeObjectsTest, AStandInBelievesOnlyAModeThatItCanRead) {
  auto policies = reader(WatchedKind::network_policies);
  EXPECT_EQ(std::get<NetworkPolicy>(
                *read(policies, WatchedKind::network_policies, policy(kBad, "u1", R"({"postern.dev/enforcement":"audit"})")).object)
                .mode,
            EnforcementMode::audit);
  EXPECT_EQ(std::get<NetworkPolicy>(
                *read(policies, WatchedKind::network_policies, policy(kGood, "u1", R"({"postern.dev/enforcement":"audti"})")).object)
                .mode,
            EnforcementMode::enforce);
}

TEST_F(KubeObjectsTest, TheLastGoodVersionStays) {
  auto policies = reader(WatchedKind::network_policies);
  read(policies, WatchedKind::network_policies, policy(kGood));
  const auto outcome = read(policies, WatchedKind::network_policies, policy(kBad));
  ASSERT_TRUE(outcome.object && outcome.unreadable);
  EXPECT_EQ(std::get<NetworkPolicy>(*outcome.object).ingress.size(), 1U);
}

TEST_F(KubeObjectsTest, TheVersionOfAnotherObjectOfTheSameNameDoesNot) {
  auto policies = reader(WatchedKind::network_policies);
  read(policies, WatchedKind::network_policies, policy(kGood));
  auto outcome = read(policies, WatchedKind::network_policies, policy(kBad, "u2"));
  ASSERT_TRUE(outcome.object);
  EXPECT_TRUE(std::get<NetworkPolicy>(*outcome.object).ingress.empty());

  read(policies, WatchedKind::network_policies, policy(kGood, "u2"));
  policies.forget({"shop", "web"});
  outcome = read(policies, WatchedKind::network_policies, policy(kBad, "u2"));
  EXPECT_TRUE(std::get<NetworkPolicy>(*outcome.object).ingress.empty());
}

TEST_F(KubeObjectsTest, AStandInIsMadeAnewFromEachUnreadableVersion) {
  auto policies = reader(WatchedKind::network_policies);
  read(policies, WatchedKind::network_policies, policy(kBad));
  const auto outcome =
      read(policies, WatchedKind::network_policies, policy(R"({"podSelector":{"matchLabels":{"app":"web"}},"ingress":[{"fromm":[]}]})"));
  EXPECT_TRUE(matches(std::get<NetworkPolicy>(*outcome.object).pod_selector, Labels{{"app", "web"}}));
}

TEST_F(KubeObjectsTest, AnUnreadablePodIsNotKnown) {
  auto pods = reader(WatchedKind::pods);
  const std::string bad = "{" + kMetadata + R"(,"annotations":{"postern.dev/mtls":"perhaps"}},"status":{"podIP":"10.1.0.1"}})";
  const auto outcome = read(pods, WatchedKind::pods, bad);
  EXPECT_FALSE(outcome.object);
  ASSERT_TRUE(outcome.unreadable);
  EXPECT_THAT(outcome.unreadable->reason, HasSubstr("postern.dev/mtls"));
}

TEST_F(KubeObjectsTest, AListThatFailedLeavesNoTrace) {
  auto policies = reader(WatchedKind::network_policies);
  read(policies, WatchedKind::network_policies, policy(kGood));
  const auto kept = stored_;
  policies.begin_list();
  read(policies, WatchedKind::network_policies, policy(kGood, "u2"));  // but the list never ended
  stored_ = kept;
  policies.begin_list();
  const auto outcome = read(policies, WatchedKind::network_policies, policy(kBad, "u2"));
  policies.end_list();
  EXPECT_TRUE(std::get<NetworkPolicy>(*outcome.object).ingress.empty()) << "what the store has is u1's";
}

}  // namespace
}  // namespace postern
