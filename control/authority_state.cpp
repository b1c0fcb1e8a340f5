#include "control/authority_state.hpp"

#include <algorithm>
#include <array>

#include "authz/decode_common.hpp"
#include "base/document.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

using std::chrono::milliseconds;

constexpr DocumentLimits limits{.bytes = authority_state_bytes, .nodes = 64, .depth = 4, .documents = 1, .scalar_bytes = 128U << 10};
constexpr std::array phases{AuthorityState::Phase::steady, AuthorityState::Phase::publishing, AuthorityState::Phase::signing};
constexpr std::int64_t last_ms = SystemTime::duration::max() / milliseconds(1) - 1;  // beyond it, the clock's nanoseconds overflow
constexpr std::chrono::hours longest_told_ttl{24 * 366};

std::int64_t ms_of(SystemTime time) { return std::chrono::duration_cast<milliseconds>(time.time_since_epoch()).count(); }

void write(JsonWriter& json, std::string_view name, const AuthorityFiles& files) {
  json.key(name).begin_object();
  json.field("roots", files.roots).text("chain", files.chain).text("key", files.key).end_object();
}

std::int64_t number_in(const Field& field, std::int64_t min, std::int64_t max) {
  const auto value = field.integer();
  if (value && *value >= min && *value <= max) return *value;
  field.refuse("expected a number from " + std::to_string(min) + " to " + std::to_string(max));
  return min;
}

AuthorityFiles read_files(const Field& field, bool with_key) {
  field.expect_only({"roots", "chain", "key"});
  AuthorityFiles files{field["roots"].string(), field["chain"].string(), field["key"].string()};
  if (files.roots.empty()) field["roots"].refuse("expected PEM certificates");
  if (files.chain.empty() == with_key)
    field["chain"].refuse(with_key ? "expected PEM certificates" : "expected none of a withdrawn authority");
  if (files.key.empty() == with_key) field["key"].refuse(with_key ? "expected a PEM key" : "expected none of a withdrawn authority");
  return files;
}

}  // namespace

std::string_view name_of(AuthorityState::Phase phase) {
  switch (phase) {
    case AuthorityState::Phase::steady: return "steady";
    case AuthorityState::Phase::publishing: return "publishing";
    case AuthorityState::Phase::signing: return "signing";
  }
  return "";
}

std::string encode(const AuthorityState& state) {
  JsonWriter json;
  json.begin_object().field("version", 1).field("sequence", state.sequence).field("phase", name_of(state.phase));
  json.field("sinceMs", ms_of(state.since)).text("given", state.given);
  write(json, "active", state.active);
  if (state.other) write(json, "other", *state.other);
  return json.end_object().take();
}

Result<AuthorityState> decode_authority_state(std::string_view text) {
  const auto document = parse_json(text, "authority.json", limits);
  if (!document) return document.error();
  Decoding decoding("authority.json");
  const Field root(decoding, document->root);
  root.expect_only({"version", "sequence", "phase", "sinceMs", "given", "active", "other"});
  if (root["version"].integer().value_or(0) != 1) root["version"].refuse("expected 1; a newer postern-control has written this");
  AuthorityState state;
  state.sequence = static_cast<std::uint64_t>(number_in(root["sequence"], 1, INT64_MAX));
  state.since = SystemTime(milliseconds(number_in(root["sinceMs"], 0, last_ms)));
  state.given = root["given"].string();
  const std::string phase = root["phase"].string();
  const auto found = std::find_if(phases.begin(), phases.end(), [&](auto one) { return name_of(one) == phase; });
  if (found == phases.end()) {
    root["phase"].refuse("expected steady, publishing or signing");
  } else {
    state.phase = *found;
  }
  state.active = read_files(root["active"], true);
  const bool has_other = root["other"].present();
  if (has_other == (state.phase == AuthorityState::Phase::steady)) root["other"].refuse("expected one during a rotation, and only then");
  if (has_other) state.other = read_files(root["other"], state.phase == AuthorityState::Phase::publishing);
  if (!decoding.ok()) return decoding.error();
  return state;
}

NumberedBundle bundle_of(const AuthorityState& state) {
  return {state.sequence, state.active.roots + (state.other ? state.other->roots : std::string())};
}

std::string encode(const AckReport& report) {
  JsonWriter json;
  json.begin_object().field("replica", report.replica).field("sequence", report.sequence).field("lagging", report.lagging);
  json.field("atMs", ms_of(report.at)).field("ttlSeconds", report.ttl.count());
  return json.end_object().take();
}

Result<AckReport> decode_ack_report(std::string_view text) {
  const auto document = parse_json(text, "report", {.bytes = 4096, .nodes = 16, .depth = 2, .documents = 1, .scalar_bytes = 512});
  if (!document) return document.error();
  Decoding decoding("report");
  const Field root(decoding, document->root);
  AckReport report;
  report.replica = root["replica"].string();
  report.sequence = static_cast<std::uint64_t>(number_in(root["sequence"], 0, INT64_MAX));
  report.lagging = static_cast<std::uint64_t>(number_in(root["lagging"], 0, INT64_MAX));
  report.at = SystemTime(milliseconds(number_in(root["atMs"], 0, last_ms)));
  report.ttl = std::chrono::seconds(number_in(root["ttlSeconds"], 1, std::chrono::seconds(longest_told_ttl).count()));
  if (!decoding.ok()) return decoding.error();
  return report;
}

bool everybody_has(std::uint64_t sequence, const AckReports& reports, milliseconds margin, SystemTime now) {
  return !reports.empty() && std::all_of(reports.begin(), reports.end(), [&](const auto& entry) {
    const AckReport& report = entry.second;
    return (report.sequence >= sequence && report.lagging == 0) || now - report.at > signs_after_report(report.ttl) + report.ttl + margin;
  });
}

std::chrono::seconds longest_ttl(std::chrono::seconds own, const AckReports& reports) {
  for (const auto& [run, report] : reports) own = std::max(own, report.ttl);
  return own;
}

AuthorityState begin_rotation(const AuthorityState& state, AuthorityFiles next, std::string given, SystemTime now) {
  AuthorityState out = state;
  out.sequence = state.sequence + 1;
  out.phase = AuthorityState::Phase::publishing;
  out.since = now;
  out.other = std::move(next);
  out.given = std::move(given);
  return out;
}

std::optional<AuthorityState> next_step(const AuthorityState& state, const AckReports& reports, std::chrono::seconds ttl,
                                        milliseconds margin, SystemTime now) {
  switch (state.phase) {
    case AuthorityState::Phase::steady: return std::nullopt;
    case AuthorityState::Phase::publishing: {
      if (!everybody_has(state.sequence, reports, margin, now)) return std::nullopt;
      AuthorityState out = state;
      out.phase = AuthorityState::Phase::signing;
      out.since = now;
      out.active = *state.other;
      out.other = AuthorityFiles{state.active.roots, {}, {}};  // it signs nothing any more: its key is forgotten
      return out;
    }
    case AuthorityState::Phase::signing: {
      if (now - state.since < ttl + margin) return std::nullopt;
      AuthorityState out = state;
      out.phase = AuthorityState::Phase::steady;
      out.since = now;
      ++out.sequence;
      out.other.reset();
      return out;
    }
  }
  return std::nullopt;
}

}  // namespace postern
