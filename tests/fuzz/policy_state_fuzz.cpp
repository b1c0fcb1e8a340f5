// The state file, whatever its bytes. The checksum keeps a fuzzer out, so what it covers is also fed with a right one; a state that is read
// is the same after writing and reading it again, and whatever its resources are, they apply whole or not at all.
#include <openssl/evp.h>

#include <array>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "proxy/held_policy.hpp"
#include "proxy/policy_state.hpp"

namespace {

std::string with_checksum(std::string_view rest) {
  std::array<unsigned char, 32> digest{};
  EVP_Digest(rest.data(), rest.size(), digest.data(), nullptr, EVP_sha256(), nullptr);
  std::string out = "postern-policy-state/1 ";
  for (const unsigned char byte : digest) {
    out += "0123456789abcdef"[byte >> 4U];
    out += "0123456789abcdef"[byte & 15U];
  }
  return out + "\n" + std::string(rest);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)postern::decode_policy_state(bytes);
  const auto state = postern::decode_policy_state(with_checksum(bytes));
  if (!state) return 0;
  const auto again = postern::decode_policy_state(postern::encode_policy_state(*state));
  if (!again || again->workload != state->workload || !(again->update.mark == state->update.mark)) std::abort();
  postern::MeshSettings local;
  local.trust_domain = *postern::TrustDomain::parse("example.org");
  postern::HeldPolicy held({"default", "web"}, local);
  const auto applied = held.apply(state->update, 1, state->written_at);
  if (applied ? held.hashes().empty() : !held.hashes().empty()) std::abort();
  return 0;
}
