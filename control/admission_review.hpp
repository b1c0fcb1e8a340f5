// AdmissionReview (admission.k8s.io/v1): what an API server asks of the webhooks, and what it is told. No I/O.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/document.hpp"
#include "base/result.hpp"
#include "control/injection_settings.hpp"

namespace postern {

// The longest request that is read: an object may have 1.5 MB in etcd, and comes at most twice.
inline constexpr std::size_t admission_review_bytes = 4U << 20;

struct AdmissionRequest {
  std::string uid;
  std::string operation;    // CREATE, UPDATE
  std::string subresource;  // "" or "ephemeralcontainers"
  std::string ns;
  std::string name;  // empty where the API server makes one up
  std::string user;
  bool dry_run = false;
  Node object;
};

// Reads an AdmissionReview of a v1 Pod. Anything else is refused: another version or kind, no UID, a value that is not what it must be, or
// text beyond the limits.
Result<AdmissionRequest> decode_admission_review(std::string_view json);

struct AdmissionAnswer {
  bool allowed = false;
  std::string message;  // of a denial
  std::string patch;    // JSON Patch; empty: none
  std::vector<std::string> warnings;
  std::vector<std::pair<std::string, std::string>> audit;  // annotations of the API server's audit log; keys without a prefix

  std::string outcome;  // for log and metrics: injected, left_alone, denied, unchanged, changed
};

// The mutating webhook: the patch that injects the sidecar.
AdmissionAnswer answer_mutation(const AdmissionRequest& request, const InjectionSettings& settings);
// The validating webhook: whether the pod is as injected once every other webhook is done, and whether its ephemeral containers get around
// the sidecar.
AdmissionAnswer answer_validation(const AdmissionRequest& request, const InjectionSettings& settings);

// AdmissionReview with the response.
std::string encode_admission_response(std::string_view uid, const AdmissionAnswer& answer);

}  // namespace postern
