#include "proxy/identity_state.hpp"

#include <array>
#include <charconv>

namespace postern {

namespace {
constexpr std::string_view format = "postern-identity-state/1";
}

std::string encode_identity_state(const IdentityState& state) {
  std::string out(format);
  for (const std::uint64_t number : {state.bundle.sequence, std::uint64_t{state.key.size()}, std::uint64_t{state.chain.size()},
                                     std::uint64_t{state.bundle.roots.size()}}) {
    out += " " + std::to_string(number);
  }
  return out + "\n" + state.key + state.chain + state.bundle.roots;
}

Result<IdentityState> decode_identity_state(std::string_view bytes) {
  const auto end = bytes.find('\n');
  if (bytes.size() > identity_state_bytes || end == std::string_view::npos || !bytes.starts_with(format))
    return Error{"not an identity state of version 1", {}};
  std::string_view header = bytes.substr(format.size(), end - format.size());
  bytes.remove_prefix(end + 1);
  std::array<std::uint64_t, 4> numbers{};
  for (std::uint64_t& number : numbers) {
    if (!header.starts_with(' ')) return Error{"its first line does not hold four numbers", {}};
    const auto [at, error] = std::from_chars(header.data() + 1, header.data() + header.size(), number);
    if (error != std::errc()) return Error{"its first line does not hold four numbers", {}};
    header.remove_prefix(static_cast<std::size_t>(at - header.data()));
  }
  const auto [sequence, key, chain, roots] = numbers;
  const std::size_t size = bytes.size();
  if (!header.empty() || key > size || chain > size || roots > size || key + chain + roots != size)
    return Error{"its lengths do not add up: it was damaged, or cut off", {}};
  IdentityState state;
  state.key = bytes.substr(0, key);
  state.chain = bytes.substr(key, chain);
  state.bundle = {sequence, std::string(bytes.substr(key + chain))};
  return state;
}

}  // namespace postern
