// What a sidecar keeps of its identity in its memory-backed folder, so that a restart goes on without the control plane.
//
//   postern-identity-state/1 <bundle's sequence> <bytes of the key> <of the chain> <of the roots>
//   <key, chain and roots, PEM>
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "certs/signing_messages.hpp"

namespace postern {

inline constexpr std::string_view identity_state_name = "identity-state";
inline constexpr std::size_t identity_state_bytes = 1U << 20;

struct IdentityState {
  std::string key;    // PEM; empty with `chain` where only the roots are known
  std::string chain;  // PEM, leaf first
  NumberedBundle bundle;
};

std::string encode_identity_state(const IdentityState& state);
// The parts, whatever they are worth: what reads PEM says that. Refuses another format, and lengths that do not add up.
Result<IdentityState> decode_identity_state(std::string_view bytes);

}  // namespace postern
