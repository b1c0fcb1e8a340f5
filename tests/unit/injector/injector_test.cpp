#include "control/injector.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>

#include "base/document_files.hpp"
#include "base/document_writer.hpp"
#include "control/json_patch.hpp"
#include "control/pod_security.hpp"
#include "control/sidecar_spec.hpp"
#include "tests/unit/injector/injector_kit.hpp"

namespace postern {
namespace {

namespace fs = std::filesystem;

Node texts(const std::vector<std::string>& values) {
  Node out = make_list({});
  for (const std::string& value : values) out.items.push_back(make_text(value));
  return out;
}

Node outcome_of(const Node& pod, const Injection& injection) {
  Node out = make_object({{"outcome", make_text(name_of(injection.outcome))}});
  if (!injection.reason.empty()) field_of(out, "reason") = make_text(injection.reason);
  if (!injection.warnings.empty()) field_of(out, "warnings") = texts(injection.warnings);
  if (!injection.bypassable.empty()) field_of(out, "bypassable") = texts(injection.bypassable);
  const auto patch = parse_json(json_patch_text(json_patch(pod, injection.pod)), "patch");
  if (!patch->root.items.empty()) field_of(out, "patch") = patch->root;
  return out;
}

class InjectionCase : public testing::TestWithParam<std::string> {};

TEST_P(InjectionCase, IsAsWrittenDown) {
  const std::string folder = GetParam();
  const auto pods = read_documents(folder + "/pod.yaml", {});
  ASSERT_TRUE(pods) << pods.error().text();
  const Node& pod = pods->front().root;
  const Injection injection = inject(pod, test_settings());
  const Node outcome = outcome_of(pod, injection);
  const std::string path = folder + "/outcome.yaml";
  if (std::getenv("POSTERN_WRITE_CASES") != nullptr) std::ofstream(path) << yaml_text(outcome);
  const auto expected = read_file(path, 1U << 20);
  ASSERT_TRUE(expected) << expected.error().text();
  EXPECT_EQ(yaml_text(outcome), *expected);
  EXPECT_TRUE(same_value(applied(pod, json_patch(pod, injection.pod)), injection.pod)) << "the patch does not make the pod";
  if (injection.outcome != Injection::Outcome::injected) {
    EXPECT_TRUE(same_value(injection.pod, pod));
    return;
  }
  const Injection again = inject(injection.pod, test_settings());
  EXPECT_EQ(again.outcome, Injection::Outcome::injected);
  EXPECT_EQ(json_patch_text(json_patch(injection.pod, again.pod)), "[]") << "a second time changes something";
}

std::vector<std::string> case_folders() {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(POSTERN_SOURCE_DIR "/tests/cases-inject")) {
    if (entry.is_directory()) out.push_back(entry.path().string());
  }
  std::sort(out.begin(), out.end());
  return out;
}

INSTANTIATE_TEST_SUITE_P(All, InjectionCase, testing::ValuesIn(case_folders()), [](const auto& info) {
  std::string name = fs::path(info.param).filename().string();
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

// What API servers add to a pod that was just injected is no reason to touch it again.
TEST(Injector, ToleratesWhatApiServersAdd) {
  Node pod = inject(pod_of("containers: [{name: a, image: b}]"), test_settings()).pod;
  Node& sidecar = field_of(field_of(pod, "spec"), "initContainers").items[1];
  field_of(sidecar, "volumeMounts")
      .items.push_back(make_object({{"name", make_text("kube-api-access-x")},
                                    {"mountPath", make_text("/var/run/secrets/kubernetes.io/serviceaccount")},
                                    {"readOnly", make_boolean(true)}}));
  field_of(field_of(field_of(sidecar, "resources"), "limits"), "cpu") = make_text("1");
  field_of(sidecar, "imagePullPolicy") = make_text("Always");
  EXPECT_TRUE(json_patch(pod, inject(pod, test_settings()).pod).empty());
}

// Each of these is a sidecar that is not ours any more.
TEST(Injector, PutsBackWhatWasTamperedWith) {
  const Node good = inject(pod_of("containers: [{name: a, image: b}]"), test_settings()).pod;
  const std::vector<std::function<void(Node&)>> tamperings{
      [](Node& c) { field_of(c, "image") = make_text("evil"); },
      [](Node& c) { field_of(c, "command").items.push_back(make_text("--log-level")); },
      [](Node& c) { field_of(c, "env").items.back().fields.back().second = make_text("{}"); },
      [](Node& c) {
        field_of(c, "env").items.push_back(make_object({{"name", make_text("LD_PRELOAD")}, {"value", make_text("/x.so")}}));
      },
      [](Node& c) {
        field_of(c, "lifecycle") = make_object({{"postStart", make_object({})}});
      },
      [](Node& c) { field_of(field_of(c, "securityContext"), "runAsUser") = make_integer(0); },
      [](Node& c) { remove_field(c, "restartPolicy"); },
      [](Node& c) { remove_field(c, "startupProbe"); },
      [](Node& c) {
        field_of(c, "volumeMounts").items.push_back(make_object({{"name", make_text("x")}, {"mountPath", make_text("/usr/bin")}}));
      },
  };
  for (std::size_t i = 0; i < tamperings.size(); ++i) {
    Node pod = good;
    tamperings[i](field_of(field_of(pod, "spec"), "initContainers").items[1]);
    EXPECT_FALSE(same_value(pod, good)) << i;
    EXPECT_TRUE(same_value(inject(pod, test_settings()).pod, good)) << i;
  }
}

// A probe that was put back to what the node would ask itself: the validating webhook denies what injecting would change.
TEST(Injector, RewritesAProbeThatWasPutBack) {
  const Node spec = pod_of("containers: [{name: a, image: b, livenessProbe: {httpGet: {path: /live, port: 8080, scheme: HTTPS}}}]");
  const Node good = inject(spec, test_settings()).pod;
  EXPECT_TRUE(json_patch(good, inject(good, test_settings()).pod).empty());
  Node tampered = good;
  Node& probe = field_of(field_of(field_of(tampered, "spec"), "containers").items[0], "livenessProbe");
  EXPECT_EQ(field_of(field_of(probe, "httpGet"), "path").scalar, "/app-probe/https/8080/live");
  field_of(field_of(probe, "httpGet"), "port") = make_integer(8080);
  EXPECT_FALSE(json_patch(tampered, inject(tampered, test_settings()).pod).empty());
  probe = *spec.find("spec")->find("containers")->items[0].find("livenessProbe");
  EXPECT_TRUE(same_value(inject(tampered, test_settings()).pod, good));
}

TEST(Injector, SettingsDecideWhatIsDenied) {
  const Node rooted = pod_of("containers: [{name: a, image: b}]");
  const Node contained = pod_of("containers: [{name: a, image: b, securityContext: {runAsNonRoot: true}}]");
  InjectionSettings settings = test_settings();
  settings.require_contained = true;
  EXPECT_EQ(inject(rooted, settings).outcome, Injection::Outcome::denied);
  EXPECT_NE(inject(rooted, settings).reason.find("drop SETUID"), std::string::npos);
  EXPECT_EQ(inject(contained, settings).outcome, Injection::Outcome::injected);

  settings = test_settings();
  const Node privileged = pod_of("containers: [{name: a, image: b, securityContext: {privileged: true}}]");
  EXPECT_EQ(inject(privileged, settings).outcome, Injection::Outcome::denied);
  settings.privileged = Strictness::warn;
  const Injection warned = inject(privileged, settings);
  EXPECT_EQ(warned.outcome, Injection::Outcome::injected);
  ASSERT_EQ(warned.warnings.size(), 1U);

  settings = test_settings();
  settings.allow_opt_out = false;
  Node out = contained;
  field_of(field_of(field_of(out, "metadata"), "labels"), inject_label) = make_text("disabled");
  const Injection forced = inject(out, settings);
  EXPECT_EQ(forced.outcome, Injection::Outcome::injected);
  ASSERT_EQ(forced.warnings.size(), 1U);
}

TEST(Injector, TheSidecarAloneHasItsVolumes) {
  const Node pod = inject(pod_of("containers: [{name: a, image: b}]\n  initContainers: [{name: i, image: b}]"), test_settings()).pod;
  const Node& spec = *pod.find("spec");
  std::size_t mounts = 0;
  for (const char* list : {"initContainers", "containers"}) {
    for (const Node& container : spec.find(list)->items) {
      const Node* found = container.find("volumeMounts");
      if (found == nullptr) continue;
      EXPECT_EQ(container.find("name")->scalar, sidecar_container);
      mounts += found->items.size();
    }
  }
  EXPECT_EQ(mounts, 2U);
}

TEST(PodSecurity, EphemeralContainersAreJudged) {
  const Node pod = pod_of(
      "containers: [{name: a}]\n  ephemeralContainers: [{name: d, targetContainerName: postern-proxy, securityContext: {capabilities: "
      "{add: [SYS_PTRACE]}}}]");
  EXPECT_EQ(judge_pod_security(*pod.find("spec"), 1337).escapes.size(), 2U);
}

}  // namespace
}  // namespace postern
