#include "control/authority_state.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace postern {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::HasSubstr;
using Phase = AuthorityState::Phase;

constexpr seconds ttl{3600};
constexpr milliseconds margin{60'000};
const SystemTime start = SystemTime(seconds(1'800'000'000));

AuthorityState steady() {
  AuthorityState state;
  state.sequence = 7;
  state.since = start;
  state.active = {"roots 1\n", "chain 1\n", "key 1\n"};
  return state;
}

AuthorityState publishing() { return begin_rotation(steady(), {"roots 2\n", "chain 2\n", "key 2\n"}, "", start + seconds(10)); }

AckReports reports(std::uint64_t sequence, std::uint64_t lagging, SystemTime at) {
  return {{"run", AckReport{"control-1", sequence, lagging, at, ttl}}};
}

// What is in the Secret is what a replica that starts after a crash goes on from: every step is followed by that.
AuthorityState restarted(const AuthorityState& state) {
  const auto read = decode_authority_state(encode(state));
  EXPECT_TRUE(read) << read.error().text();
  EXPECT_EQ(encode(*read), encode(state));
  return *read;
}

TEST(AuthorityState, ARotationTakesItsStepsInOrderAcrossRestarts) {
  AuthorityState state = restarted(publishing());
  EXPECT_EQ(state.phase, Phase::publishing);
  EXPECT_EQ(state.active.key, "key 1\n") << "the old one signs until everybody knows the new";
  EXPECT_EQ(bundle_of(state), (NumberedBundle{8, "roots 1\nroots 2\n"}));

  SystemTime now = start + seconds(20);
  EXPECT_FALSE(next_step(state, reports(7, 0, now), ttl, margin, now)) << "a replica publishes the old bundle yet";
  EXPECT_FALSE(next_step(state, reports(8, 1, now), ttl, margin, now)) << "one sidecar lags";
  EXPECT_FALSE(next_step(state, {}, ttl, margin, now)) << "nobody has said anything";
  auto next = next_step(state, reports(8, 0, now), ttl, margin, now);
  ASSERT_TRUE(next);
  state = restarted(*next);
  EXPECT_EQ(state.phase, Phase::signing);
  EXPECT_EQ(state.active.key, "key 2\n");
  EXPECT_EQ(state.other->roots, "roots 1\n");
  EXPECT_TRUE(state.other->key.empty()) << "the old key is forgotten";
  EXPECT_EQ(bundle_of(state), (NumberedBundle{8, "roots 2\nroots 1\n"})) << "old SVIDs are still about";

  EXPECT_FALSE(next_step(state, reports(8, 0, now), ttl, margin, now + ttl + margin - seconds(1)));
  next = next_step(state, reports(8, 0, now), ttl, margin, now + ttl + margin);
  ASSERT_TRUE(next);
  state = restarted(*next);
  EXPECT_EQ(state.phase, Phase::steady);
  EXPECT_EQ(bundle_of(state), (NumberedBundle{9, "roots 2\n"}));
  EXPECT_FALSE(next_step(state, reports(9, 0, now), ttl, margin, now + 10 * ttl));
}

TEST(AuthorityState, AReplicaThatDiedIsWaitedForAsLongAsItsSvidsLive) {
  const AuthorityState state = publishing();
  AckReports all = reports(8, 0, start + ttl * 3);
  all.emplace("died", AckReport{"control-2", 7, 3, start, ttl});
  // The last one may have been signed a while after its report, by a clock that is late.
  const auto last_end = start + signs_after_report(ttl) + ttl + margin;
  EXPECT_FALSE(next_step(state, all, ttl, margin, last_end));
  EXPECT_TRUE(next_step(state, all, ttl, margin, last_end + seconds(1)));
}

TEST(AuthorityState, TheLongestLifetimeThatAnyReplicaSignsCounts) {
  AckReports all = reports(8, 0, start);
  all.emplace("other", AckReport{"control-2", 8, 0, start, 2 * ttl});
  EXPECT_EQ(longest_ttl(ttl, all), 2 * ttl);
  EXPECT_EQ(longest_ttl(3 * ttl, all), 3 * ttl);
}

std::string refusal_of(std::string text, std::string_view what, std::string_view with) {
  const auto at = text.find(what);
  EXPECT_NE(at, std::string::npos) << what;
  text.replace(at, what.size(), with);
  const auto read = decode_authority_state(text);
  return read ? "accepted" : read.error().text();
}

TEST(AuthorityState, RefusesWhatItDidNotWrite) {
  const std::string text = encode(publishing());
  EXPECT_THAT(refusal_of(text, "\"version\":1", "\"version\":2"), HasSubstr("newer postern-control"));
  EXPECT_THAT(refusal_of(text, "publishing", "waiting"), HasSubstr("expected steady, publishing or signing"));
  EXPECT_THAT(refusal_of(text, "publishing", "steady"), HasSubstr("other"));
  EXPECT_THAT(refusal_of(text, "publishing", "signing"), HasSubstr("expected none of a withdrawn"));
  EXPECT_THAT(refusal_of(text, "\"sequence\":8", "\"sequence\":0"), HasSubstr("sequence"));
  EXPECT_THAT(refusal_of(text, "\"key\":\"key 1\\n\"", "\"key\":\"\""), HasSubstr("expected a PEM key"));
  EXPECT_THAT(refusal_of(text, "\"roots\"", "\"root\""), HasSubstr("root"));
  EXPECT_FALSE(decode_authority_state(""));
  EXPECT_FALSE(decode_authority_state(std::string(authority_state_bytes + 1, ' ')));
}

TEST(AuthorityState, AReportIsReadAsWritten) {
  const AckReport report{"control-1", 8, 2, start, ttl};
  const auto read = decode_ack_report(encode(report));
  ASSERT_TRUE(read) << read.error().text();
  EXPECT_EQ(*read, report);
  EXPECT_FALSE(decode_ack_report("{}"));
}

}  // namespace
}  // namespace postern
