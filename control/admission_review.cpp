#include "control/admission_review.hpp"

#include <algorithm>

#include "authz/decode_common.hpp"
#include "base/base64.hpp"
#include "base/json_writer.hpp"
#include "control/injection_options.hpp"
#include "control/injector.hpp"
#include "control/json_patch.hpp"
#include "control/pod_security.hpp"

namespace postern {
namespace {

constexpr DocumentLimits kLimits{.bytes = admission_review_bytes, .nodes = 400'000, .depth = 100, .documents = 1, .scalar_bytes = 2U << 20};

void expect(const Field& field, std::string_view value) {
  if (field.string() != value) field.refuse("expected \"" + std::string(value) + "\"");
}

std::string joined(const std::vector<std::string>& items) {
  std::string out;
  for (const std::string& item : items) out.append(out.empty() ? "" : ",").append(item);
  return out;
}

AdmissionAnswer denied(std::string message) {
  AdmissionAnswer answer;
  answer.outcome = "denied";
  answer.audit.emplace_back("denied", message);
  answer.message = "postern: " + std::move(message);
  return answer;
}

AdmissionAnswer allowed(const Injection& injection, std::string_view outcome) {
  AdmissionAnswer answer;
  answer.allowed = true;
  answer.outcome = outcome;
  answer.warnings = injection.warnings;
  answer.audit.emplace_back("outcome", injection.reason.empty() ? answer.outcome : answer.outcome + ": " + injection.reason);
  if (!injection.bypassable.empty()) answer.audit.emplace_back("bypassable", joined(injection.bypassable));
  return answer;
}

AdmissionAnswer answer_ephemeral(const AdmissionRequest& request, const InjectionSettings& settings) {
  const Node* spec = request.object.find("spec");
  const Injection injection = inject(request.object, settings);
  if (spec == nullptr || injection.outcome == Injection::Outcome::left_alone) return allowed(injection, "left_alone");
  // inject() has judged every container of the pod, also those that were there before: only what is escaping now counts.
  const PodSecurity security = judge_pod_security(*spec, settings.uid);
  const Node* ephemeral = spec->find("ephemeralContainers");
  Injection out;
  for (const Node& container : ephemeral == nullptr ? std::vector<Node>() : ephemeral->items) {
    const Node* name = container.find("name");
    const std::string prefix = "container " + (name == nullptr ? std::string() : name->scalar) + " ";
    for (const std::string& escape : security.escapes) {
      if (!escape.starts_with(prefix)) continue;
      if (settings.privileged == Strictness::deny) return denied("this ephemeral container could get around the sidecar: " + escape);
      out.warnings.push_back(escape);
    }
    const bool is_bypassable =
        name != nullptr && std::find(security.bypassable.begin(), security.bypassable.end(), name->scalar) != security.bypassable.end();
    if (!is_bypassable) continue;
    if (settings.require_contained) return denied("the ephemeral container " + name->scalar + " may run as root with SETUID; drop SETUID");
    out.bypassable.push_back(name->scalar);
  }
  return allowed(out, "unchanged");
}

}  // namespace

Result<AdmissionRequest> decode_admission_review(std::string_view json) {
  const auto document = parse_json(json, "AdmissionReview", kLimits);
  if (!document) return document.error();
  Decoding decoding("AdmissionReview");
  const Field review(decoding, document->root);
  AdmissionRequest out;
  if (!review.is_mapping()) return decoding.error();
  expect(review["apiVersion"], "admission.k8s.io/v1");
  expect(review["kind"], "AdmissionReview");
  const Field request = review["request"];
  if (!request.present()) request.refuse("Required value: there is no request");
  out.uid = request["uid"].string();
  if (out.uid.empty()) request["uid"].refuse("Required value: a request has a UID");
  expect(request["resource"]["group"], "");
  expect(request["resource"]["version"], "v1");
  expect(request["resource"]["resource"], "pods");
  out.operation = request["operation"].string();
  out.subresource = request["subResource"].string();
  out.ns = request["namespace"].string();
  if (out.ns.empty()) request["namespace"].refuse("Required value: a pod has a namespace");
  out.name = request["name"].string();
  out.user = request["userInfo"]["username"].string();
  out.dry_run = request["dryRun"].boolean();
  const Field object = request["object"];
  expect(object["kind"], "Pod");
  if (!decoding.ok()) return decoding.error();
  out.object = object.node();
  return out;
}

AdmissionAnswer answer_mutation(const AdmissionRequest& request, const InjectionSettings& settings) {
  if (request.operation != "CREATE" || !request.subresource.empty())
    return denied("expected the creation of a pod; register /inject for nothing else");
  Injection injection = inject(request.object, settings);
  if (injection.outcome == Injection::Outcome::denied) return denied(injection.reason);
  AdmissionAnswer answer = allowed(injection, name_of(injection.outcome));
  const auto patch = json_patch(request.object, injection.pod);
  if (!patch.empty()) answer.patch = json_patch_text(patch);
  return answer;
}

AdmissionAnswer answer_validation(const AdmissionRequest& request, const InjectionSettings& settings) {
  if (request.subresource == "ephemeralcontainers") return answer_ephemeral(request, settings);
  if (request.operation != "CREATE" || !request.subresource.empty()) {
    return denied("expected the creation of a pod, or its ephemeral containers; register /validate for nothing else");
  }
  const Injection injection = inject(request.object, settings);
  if (injection.outcome == Injection::Outcome::denied) return denied(injection.reason);
  if (injection.outcome == Injection::Outcome::left_alone) return allowed(injection, "left_alone");
  const auto patch = json_patch(request.object, injection.pod);
  if (patch.empty()) {
    AdmissionAnswer answer = allowed(injection, "unchanged");
    answer.warnings.clear();  // the mutating webhook has said them
    return answer;
  }
  return denied(
      "the pod is not as the injector made it, at " + patch.front().path +
      ": another webhook changed it, or the injector was not asked; let postern's mutating webhook run last or be reinvoked, and leave "
      "postern-redirect, postern-proxy and their volumes alone");
}

std::string encode_admission_response(std::string_view uid, const AdmissionAnswer& answer) {
  constexpr std::size_t kWarningBytes = 250;  // API servers cut what is longer than 256 (admission/v1 types.go)
  JsonWriter json;
  json.begin_object().field("apiVersion", "admission.k8s.io/v1").field("kind", "AdmissionReview");
  json.key("response").begin_object().field("uid", uid).field("allowed", answer.allowed);
  if (!answer.allowed) json.key("status").begin_object().field("code", 403).field("message", answer.message).end_object();
  if (!answer.patch.empty()) json.field("patchType", "JSONPatch").field("patch", to_base64(answer.patch));
  if (!answer.audit.empty()) {
    json.key("auditAnnotations").begin_object();
    for (const auto& [key, value] : answer.audit) json.field(key, value);
    json.end_object();
  }
  if (!answer.warnings.empty()) {
    json.key("warnings").begin_array();
    for (const std::string& warning : answer.warnings) json.value("postern: " + warning.substr(0, kWarningBytes - 9));
    json.end_array();
  }
  return json.end_object().end_object().take();
}

}  // namespace postern
