#include "control/admission_review.hpp"

#include <gtest/gtest.h>

#include "base/base64.hpp"
#include "control/injector.hpp"
#include "tests/unit/injector/injector_kit.hpp"

namespace postern {
namespace {

std::string review_of(const Node& pod, std::string_view operation = "CREATE", std::string_view subresource = "") {
  return R"({"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{"uid":"u-1","resource":{"group":"","version":"v1",)"
         R"("resource":"pods"},"namespace":"shop","userInfo":{"username":"alice"},"dryRun":true,"operation":")" +
         std::string(operation) + R"(","subResource":")" + std::string(subresource) + R"(","object":)" + json_text(pod) + "}}";
}

AdmissionRequest request_of(const Node& pod, std::string_view operation = "CREATE", std::string_view subresource = "") {
  auto request = decode_admission_review(review_of(pod, operation, subresource));
  EXPECT_TRUE(request) << request.error().text();
  return *std::move(request);
}

Node response_of(const AdmissionAnswer& answer) {
  auto document = parse_json(encode_admission_response("u-1", answer), "response");
  EXPECT_TRUE(document);
  return *document->root.find("response");
}

const Node web = pod_of("containers: [{name: web, image: nginx, securityContext: {runAsNonRoot: true}}]");

TEST(AdmissionReview, APodIsInjectedByAPatch) {
  const AdmissionRequest request = request_of(web);
  EXPECT_EQ(request.user, "alice");
  EXPECT_TRUE(request.dry_run);
  const Node response = response_of(answer_mutation(request, test_settings()));
  EXPECT_EQ(response.find("uid")->scalar, "u-1");
  EXPECT_TRUE(response.find("allowed")->boolean);
  EXPECT_EQ(response.find("patchType")->scalar, "JSONPatch");
  const auto patch = parse_json(*from_base64(response.find("patch")->scalar), "patch");
  ASSERT_TRUE(patch);
  EXPECT_FALSE(patch->root.items.empty());
}

TEST(AdmissionReview, ADenialSaysWhy) {
  Node pod = web;
  field_of(field_of(field_of(pod, "metadata"), "annotations"), "postern.dev/mtls") = make_text("lax");
  for (const auto& answer : {answer_mutation(request_of(pod), test_settings()), answer_validation(request_of(pod), test_settings())}) {
    const Node response = response_of(answer);
    EXPECT_FALSE(response.find("allowed")->boolean);
    EXPECT_EQ(response.find("patch"), nullptr);
    EXPECT_NE(response.find("status")->find("message")->scalar.find("postern.dev/mtls"), std::string::npos);
  }
}

TEST(AdmissionReview, OnlyAPodAsInjectedPassesValidation) {
  const Injection injection = inject(web, test_settings());
  EXPECT_TRUE(answer_validation(request_of(injection.pod), test_settings()).allowed);
  const AdmissionAnswer bare = answer_validation(request_of(web), test_settings());
  EXPECT_FALSE(bare.allowed);
  Node tampered = injection.pod;
  field_of(field_of(tampered, "spec"), "initContainers").items[1].fields[1].second = make_text("evil");
  const AdmissionAnswer answer = answer_validation(request_of(tampered), test_settings());
  EXPECT_FALSE(answer.allowed);
  EXPECT_NE(answer.message.find("/spec/initContainers/1/image"), std::string::npos) << answer.message;
  // Somebody's own container in front of the redirection.
  Node first = injection.pod;
  auto& list = field_of(field_of(first, "spec"), "initContainers").items;
  list.insert(list.begin(), make_object({{"name", make_text("first")}, {"image", make_text("x")}}));
  EXPECT_FALSE(answer_validation(request_of(first), test_settings()).allowed);
  EXPECT_TRUE(answer_validation(request_of(pod_of("{hostNetwork: true, containers: [{name: a}]}")), test_settings()).allowed);
}

TEST(AdmissionReview, EphemeralContainersMayNotEscape) {
  Node pod = inject(web, test_settings()).pod;
  Node& list = field_of(field_of(pod, "spec"), "ephemeralContainers");
  list = make_list({make_object({{"name", make_text("debugger")}, {"image", make_text("busybox")}})});
  const auto validate = [&](const InjectionSettings& settings) {
    return answer_validation(request_of(pod, "UPDATE", "ephemeralcontainers"), settings);
  };
  const AdmissionAnswer harmless = validate(test_settings());
  EXPECT_TRUE(harmless.allowed) << harmless.message;
  InjectionSettings contained = test_settings();
  contained.require_contained = true;
  EXPECT_FALSE(validate(contained).allowed);
  field_of(list.items[0], "securityContext") = make_object({{"privileged", make_boolean(true)}});
  EXPECT_FALSE(validate(test_settings()).allowed);
  list.items[0] = make_object({{"name", make_text("debugger")}, {"targetContainerName", make_text("postern-proxy")}});
  EXPECT_FALSE(validate(test_settings()).allowed);
}

TEST(AdmissionReview, IsRegisteredForNothingElse) {
  EXPECT_FALSE(answer_mutation(request_of(web, "UPDATE"), test_settings()).allowed);
  EXPECT_FALSE(answer_validation(request_of(web, "UPDATE"), test_settings()).allowed);
  EXPECT_FALSE(answer_validation(request_of(web, "CREATE", "binding"), test_settings()).allowed);
}

TEST(AdmissionReview, WhatIsForgedIsRefused) {
  const std::string good = review_of(web);
  const auto with = [&](std::string_view from, std::string_view to) {
    std::string text = good;
    const auto at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return text.replace(at, from.size(), to);
  };
  for (const std::string& text :
       {std::string(), std::string("{}"), std::string("[]"), std::string("null"), good + "x", good.substr(0, good.size() - 1),
        with("/v1", "/v2"), with("\"AdmissionReview\"", "\"Pod\""), with("u-1", ""), with("\"uid\":\"u-1\"", "\"uid\":1"),
        with("\"pods\"", "\"secrets\""), with("\"shop\"", "\"\""), with("\"dryRun\":true", "\"dryRun\":\"yes\""),
        with("\"kind\":\"Pod\"", "\"kind\":\"Deployment\""), with("\"uid\":\"u-1\"", "\"uid\":\"u-1\",\"uid\":\"u-2\""),
        with("\"object\":{", "\"object\":[],\"other\":{"), std::string(admission_review_bytes + 1, ' '), std::string(200, '[')}) {
    const auto request = decode_admission_review(text);
    EXPECT_FALSE(request) << text.substr(0, 200);
  }
}

}  // namespace
}  // namespace postern
