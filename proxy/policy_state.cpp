#include "proxy/policy_state.hpp"

#include <charconv>

#include "certs/digest.hpp"

namespace postern {

namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr std::string_view format = "postern-policy-state/1 ";

// Up to the next newline, which is taken away too. Nothing where there is none.
std::optional<std::string_view> take_line(std::string_view& text) {
  const auto end = text.find('\n');
  if (end == std::string_view::npos) return std::nullopt;
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end + 1);
  return line;
}

}  // namespace

std::string encode_policy_state(const PolicyState& state) {
  const auto written = std::chrono::duration_cast<milliseconds>(state.written_at.time_since_epoch()).count();
  std::string rest = std::to_string(written) + " " + state.workload + "\n";
  rest += encode(ControlMessage(state.update));
  return std::string(format) + sha256_hex(rest) + "\n" + rest;
}

Result<PolicyState> decode_policy_state(std::string_view bytes) {
  const auto header = take_line(bytes);
  if (!header || !header->starts_with(format)) return Error{"not a policy state of version 1", ""};
  if (header->substr(format.size()) != sha256_hex(bytes)) return Error{"its checksum is wrong: it was damaged, or cut off", ""};
  const auto meta = take_line(bytes);
  const auto space = meta ? meta->find(' ') : std::string_view::npos;
  if (space == std::string_view::npos) return Error{"its second line is not \"<time> <namespace>/<name>\"", ""};
  std::int64_t written = 0;
  const auto [end, failed] = std::from_chars(meta->data(), meta->data() + space, written);
  // Beyond this, milliseconds no longer fit the clock's nanoseconds.
  constexpr std::int64_t last_ms = system_clock::duration::max() / milliseconds(1) - 1;
  if (failed != std::errc() || end != meta->data() + space || written < 0 || written > last_ms)
    return Error{"its time is not a number", ""};
  auto message = decode_control_message(bytes);
  if (!message) return message.error();
  auto* update = std::get_if<Update>(&*message);
  if (update == nullptr) return Error{"it holds a message that is no update", ""};
  return PolicyState{system_clock::time_point(milliseconds(written)), std::string(meta->substr(space + 1)), std::move(*update)};
}

Result<void> check_age(const PolicyState& state, system_clock::time_point now, milliseconds max_age) {
  constexpr std::chrono::minutes skew{1};  // clocks are corrected by a little
  if (state.written_at > now + skew) return Error{"it was written in the future by this clock, so its age is not known", ""};
  const auto age = std::chrono::duration_cast<std::chrono::seconds>(now - state.written_at);
  if (age <= max_age) return {};
  const auto limit = std::chrono::duration_cast<std::chrono::seconds>(max_age);
  return Error{"it is " + std::to_string(age.count()) + " s old; control.maxPolicyAge allows " + std::to_string(limit.count()) + " s", ""};
}

}  // namespace postern
