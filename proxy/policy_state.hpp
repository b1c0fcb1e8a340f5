// The state file: the last good policy as the control plane sent it, in a memory-backed folder (architecture section 5), so that a
// restarted sidecar goes on while the control plane is away.
//
//   postern-policy-state/1 <SHA-256 of all that follows the first line, hex>
//   <written at, milliseconds of unix time> <namespace>/<name of the pod>
//   <one Update, as on the stream: mark and every resource>
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>

#include "authz/stream_messages.hpp"
#include "proxy/state_file.hpp"

namespace postern {

struct PolicyState {
  std::chrono::system_clock::time_point written_at;
  std::string workload;  // namespace/name
  Update update;
};

inline constexpr std::size_t policy_state_bytes = control_message_bytes + 4096;  // the longest file that is read
inline constexpr std::string_view policy_state_name = "policy-state";

std::string encode_policy_state(const PolicyState& state);
// A wrong checksum, another format, a message that is no Update: an error. Reads whatever its bytes.
Result<PolicyState> decode_policy_state(std::string_view bytes);
// maxPolicyAge, by the time at which the state was confirmed last. A time in the future says nothing about its age: it counts as too old.
Result<void> check_age(const PolicyState& state, std::chrono::system_clock::time_point now, std::chrono::milliseconds max_age);

// The file's bytes, and its replacement: see proxy/state_file.hpp.
inline Result<std::optional<std::string>> read_policy_state(const std::string& folder) {
  return read_state_file(folder, policy_state_name, policy_state_bytes);
}
inline Result<void> write_policy_state(const std::string& folder, std::string_view bytes) {
  return write_state_file(folder, policy_state_name, bytes);
}

}  // namespace postern
