// What a sidecar and the control plane's signing port say to each other (docs/identity.md): one JSON object each way, over HTTPS.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace postern {

inline constexpr std::string_view signing_path = "/v1/svid";
inline constexpr std::string_view signing_alpn = "postern-signing/1";
inline constexpr std::size_t signing_request_bytes = 32U << 10;
inline constexpr std::size_t signing_answer_bytes = 256U << 10;

// The trust bundle as the control plane tells it. Of two, the one with the larger sequence is the newer.
struct NumberedBundle {
  std::uint64_t sequence = 0;
  std::string roots;  // PEM
  bool operator==(const NumberedBundle&) const = default;
};

struct SigningRequest {
  std::string token;                  // of the pod's ServiceAccount, for the audience postern-control
  std::string csr;                    // PEM
  std::uint64_t bundle_sequence = 0;  // of the trust bundle that is in force at the sidecar; 0: none of the control plane's
};

struct SigningAnswer {
  std::string chain;  // PEM, leaf first
  NumberedBundle bundle;
};

std::string encode(const SigningRequest& request);
std::string encode(const SigningAnswer& answer);
std::string encode_signing_error(std::string_view message);
// Bounded by the sizes above; unknown, missing and ill-typed fields are refused.
Result<SigningRequest> decode_signing_request(std::string_view text);
Result<SigningAnswer> decode_signing_answer(std::string_view text);
// The message of a refusal's body; empty where there is none.
std::string signing_error_of(std::string_view text);

}  // namespace postern
