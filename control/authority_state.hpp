// AuthorityState: the authority of the trust domain as it is kept in a Secret, and its rotation, step by step. No I/O: a step is one
// replacement of the Secret, so that a crash leaves the state before the step or the one after it, and any replica goes on from there.
//
//   steady --rotation begins--> publishing --every sidecar has the next root--> signing --the last old SVID has ended--> steady
//   roots: active               active + next; active signs                     next, now active, + previous             active
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "certs/authority.hpp"
#include "certs/signing_messages.hpp"

namespace postern {

struct AuthorityState {
  enum class Phase : std::uint8_t { steady, publishing, signing };

  std::uint64_t sequence = 1;  // of the trust bundle: grows with each change of it
  Phase phase = Phase::steady;
  SystemTime since;  // when the phase began; whole milliseconds
  AuthorityFiles active;
  std::optional<AuthorityFiles> other;  // publishing: the next one; signing: the previous one, of which only the roots are left
  std::string given;                    // what the newest authority was taken from: the digest of a given Secret; empty: self-created
};
std::string_view name_of(AuthorityState::Phase phase);

inline constexpr std::size_t authority_state_bytes = 512U << 10;

std::string encode(const AuthorityState& state);
// Bounded; refuses what is not exactly what encode() writes. What the certificates are worth is Authority::load's business.
Result<AuthorityState> decode_authority_state(std::string_view text);

// The roots that sidecars are to trust in this state.
NumberedBundle bundle_of(const AuthorityState& state);

// What one run of a replica has told of the sidecars that it has seen within the SVIDs' lifetime, in an annotation of the Secret.
struct AckReport {
  std::string replica;
  std::uint64_t sequence = 0;  // of the bundle that it publishes
  std::uint64_t lagging = 0;   // sidecars that have not acknowledged that bundle
  SystemTime at;
  std::chrono::seconds ttl{};  // of the SVIDs that it signs
  bool operator==(const AckReport&) const = default;
};
std::string encode(const AckReport& report);
Result<AckReport> decode_ack_report(std::string_view text);
using AckReports = std::map<std::string, AckReport>;  // by the name of the run

// How long after its report a replica may still sign: it reports again in half of that time, and signs nothing while it cannot.
constexpr std::chrono::milliseconds signs_after_report(std::chrono::seconds ttl) { return std::chrono::milliseconds(ttl) / 4; }

// Whether every sidecar that any replica has seen within an SVID's lifetime has acknowledged the bundle of that sequence. A report counts
// for as long as an SVID that its replica may have signed lives: so a replica that died is waited for, and not for ever.
bool everybody_has(std::uint64_t sequence, const AckReports& reports, std::chrono::milliseconds margin, SystemTime now);
// The longest lifetime of an SVID that any of them has signed, or may sign.
std::chrono::seconds longest_ttl(std::chrono::seconds own, const AckReports& reports);

// steady -> publishing. REQUIRES: steady.
AuthorityState begin_rotation(const AuthorityState& state, AuthorityFiles next, std::string given, SystemTime now);
// The step that is due, or nothing. `ttl`: the longest lifetime of an SVID; `margin`: what clocks, and replicas that have not heard of the
// step yet, may be late by.
std::optional<AuthorityState> next_step(const AuthorityState& state, const AckReports& reports, std::chrono::seconds ttl,
                                        std::chrono::milliseconds margin, SystemTime now);

}  // namespace postern
