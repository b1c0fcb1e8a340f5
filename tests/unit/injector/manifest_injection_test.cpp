#include "control/manifest_injection.hpp"

#include <gtest/gtest.h>

#include "tests/unit/injector/injector_kit.hpp"

namespace postern {
namespace {

Result<std::vector<ManifestInjection>> run(std::string_view yaml, std::string* text = nullptr) {
  auto documents = parse_yaml(yaml, "app.yaml");
  if (!documents) return documents.error();
  std::vector<ManifestInjection> done;
  for (Document& document : *documents) {
    auto injected = inject_manifest(document, test_settings(), done);
    if (!injected) return injected.error();
    if (text != nullptr) *text += yaml_text(document.root) + "---\n";
  }
  return done;
}

TEST(ManifestInjection, FindsThePodsOfEveryWorkload) {
  std::string manifests = "apiVersion: v1\nkind: List\nitems:\n";
  constexpr std::string_view kTemplate = "template: {metadata: {labels: {a: b}}, spec: {containers: [{name: c, image: d}]}}";
  for (const char* kind : {"Deployment", "StatefulSet", "DaemonSet", "ReplicaSet"}) {
    manifests += std::string("- {apiVersion: apps/v1, kind: ") + kind + ", metadata: {name: x}, spec: {" + std::string(kTemplate) + "}}\n";
  }
  manifests += "- {apiVersion: batch/v1, kind: Job, metadata: {name: x}, spec: {" + std::string(kTemplate) + "}}\n";
  manifests +=
      "- {apiVersion: batch/v1, kind: CronJob, metadata: {name: x}, spec: {jobTemplate: {spec: {" + std::string(kTemplate) + "}}}}\n";
  manifests += "- {apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: c, image: d}]}}\n";
  manifests += "- {apiVersion: v1, kind: Service, metadata: {name: x}, spec: {ports: [{port: 80}]}}\n";
  std::string text;
  const auto done = run(manifests, &text);
  ASSERT_TRUE(done) << done.error().text();
  EXPECT_EQ(done->size(), 7U);
  for (const ManifestInjection& one : *done) EXPECT_EQ(one.outcome, "injected") << one.object;
  std::size_t sidecars = 0;
  for (std::size_t at = text.find("restartPolicy: Always"); at != std::string::npos; at = text.find("restartPolicy: Always", at + 1))
    ++sidecars;
  EXPECT_EQ(sidecars, 7U);
}

TEST(ManifestInjection, LeavesTheRestAsItIs) {
  constexpr std::string_view kService =
      "apiVersion: v1\nkind: Service\nmetadata:\n  name: x\nspec:\n  ports:\n  - port: 80\n    targetPort: \"8080\"\n";
  std::string text;
  ASSERT_TRUE(run(kService, &text));
  EXPECT_EQ(text, std::string(kService) + "---\n");
  // A kind of another group that happens to be called Deployment is not ours to know.
  EXPECT_TRUE(run("{apiVersion: example.com/v1, kind: Deployment, metadata: {name: x}}")->empty());
}

TEST(ManifestInjection, ADeniedPodNamesItsObject) {
  const auto done =
      run("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec:\n  template:\n    metadata:\n"
          "      annotations: {postern.dev/mtls: x}\n    spec: {containers: [{name: c}]}\n");
  ASSERT_FALSE(done);
  EXPECT_EQ(done.error().where, "app.yaml:1: Deployment shop/web");
  EXPECT_NE(done.error().message.find("postern.dev/mtls"), std::string::npos) << done.error().text();
  EXPECT_FALSE(run("{apiVersion: apps/v1, kind: Deployment, metadata: {name: web}, spec: {}}"));
}

}  // namespace
}  // namespace postern
