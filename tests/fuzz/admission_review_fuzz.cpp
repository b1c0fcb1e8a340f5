// An AdmissionReview of anybody who reaches the webhook: it can only be answered or refused, the answer is JSON, and injecting is
// idempotent.
#include "control/admission_review.hpp"

#include <cstdint>
#include <cstdlib>

#include "base/document_writer.hpp"
#include "control/injector.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  static const InjectionSettings settings = [] {
    InjectionSettings made;
    made.trust_domain = *TrustDomain::parse("cluster.local");
    return made;
  }();
  const auto request = decode_admission_review({reinterpret_cast<const char*>(data), size});
  if (!request) return 0;
  for (const auto& answer : {answer_mutation(*request, settings), answer_validation(*request, settings)}) {
    if (!parse_json(encode_admission_response(request->uid, answer), "response")) std::abort();
    if (!answer.allowed && (answer.message.empty() || !answer.patch.empty())) std::abort();
  }
  const Injection once = inject(request->object, settings);
  if (once.outcome != Injection::Outcome::injected) return 0;
  const Injection twice = inject(once.pod, settings);
  if (twice.outcome != Injection::Outcome::injected || !same_value(once.pod, twice.pod)) std::abort();
  return 0;
}
