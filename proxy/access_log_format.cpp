// AccessRecord -> one line of JSON. The fields are described in docs/access-log.md; their names are those of OpenTelemetry's
// semantic conventions where it has one.
#include <charconv>
#include <cstdio>
#include <span>

#include "base/log.hpp"
#include "proxy/access_log.hpp"

namespace postern {
namespace {

constexpr PolicyDirection policy_direction(Direction direction) {
  return direction == Direction::inbound ? PolicyDirection::ingress : PolicyDirection::egress;
}

void append_number(std::string& out, std::uint64_t number) {
  std::array<char, 20> digits{};
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), number).ptr;
  out.append(digits.data(), end);
}

// Appends the members of one JSON object. Names are ours; every text value is escaped.
class Members {
 public:
  explicit Members(std::string& out) : out_(out) { out_ += '{'; }
  void end() { out_ += '}'; }

  void text(std::string_view name, std::string_view value) {
    key(name);
    append_json_string(out_, value);
  }
  void number(std::string_view name, std::uint64_t value) {
    key(name);
    append_number(out_, value);
  }
  void truth(std::string_view name, bool value) {
    key(name);
    out_ += value ? "true" : "false";
  }
  void address(std::string_view side, const SocketAddress& address) {
    text(std::string(side) + ".address", address.address.text());
    number(std::string(side) + ".port", address.port.number);
  }
  // The caller appends the value.
  std::string& key(std::string_view name) {
    if (!first_) out_ += ',';
    first_ = false;
    out_ += '"';
    out_ += name;
    out_ += "\":";
    return out_;
  }

 private:
  std::string& out_;
  bool first_ = true;
};

// RFC 3339, UTC, microseconds.
void append_time(std::string& out, std::chrono::system_clock::time_point time) {
  const auto micros = std::chrono::floor<std::chrono::microseconds>(time);
  const auto day = std::chrono::floor<std::chrono::days>(micros);
  const std::chrono::year_month_day date{day};
  const std::chrono::hh_mm_ss clock{micros - day};
  std::array<char, 64> text{};
  const int size = std::snprintf(text.data(), text.size(), "\"%04d-%02u-%02uT%02d:%02d:%02d.%06dZ\"", static_cast<int>(date.year()),
                                 static_cast<unsigned>(date.month()), static_cast<unsigned>(date.day()),
                                 static_cast<int>(clock.hours().count()), static_cast<int>(clock.minutes().count()),
                                 static_cast<int>(clock.seconds().count()), static_cast<int>(clock.subseconds().count()));
  out.append(text.data(), static_cast<std::size_t>(size));
}

// Milliseconds with three decimals.
void append_milliseconds(std::string& out, std::chrono::nanoseconds duration) {
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(std::max(duration, std::chrono::nanoseconds{0})).count();
  std::array<char, 32> text{};
  const int size =
      std::snprintf(text.data(), text.size(), "%lld.%03d", static_cast<long long>(micros / 1000), static_cast<int>(micros % 1000));
  out.append(text.data(), static_cast<std::size_t>(size));
}

void append_hex(std::string& out, std::span<const std::uint8_t> bytes) {
  constexpr std::string_view digits = "0123456789abcdef";
  out += '"';
  for (const std::uint8_t byte : bytes) {
    out += digits[byte >> 4U];
    out += digits[byte & 0xFU];
  }
  out += '"';
}

// An address that was never learned (a connection that was not redirected) is left out.
bool is_set(const SocketAddress& address) { return address != SocketAddress{}; }

void append_workload(Members& members, std::string_view side, const Workload* workload) {
  if (workload == nullptr) return;
  const std::string prefix = std::string(side) + ".k8s.";
  members.text(prefix + "namespace", workload->ns);
  members.text(prefix + "pod", workload->name);
  if (!workload->uid.empty()) members.text(prefix + "uid", workload->uid);
}

void append_endpoints(Members& members, const AccessRecord& record) {
  members.text("network.transport", "tcp");
  members.text("network.type", record.source.address.is_v4() ? "ipv4" : "ipv6");
  members.address("source", record.source);
  if (is_set(record.destination)) members.address("destination", record.destination);
  if (is_set(record.original_destination) && record.original_destination != record.destination) {
    members.address("original_destination", record.original_destination);
  }
  append_workload(members, "source", record.source_workload);
  append_workload(members, "destination", record.destination_workload);
  if (!record.service.empty()) members.text("destination.service", record.service);
}

// A SPIFFE ID only where it was proven: the peer's by its certificate, our own where the peer accepted it in a handshake.
void append_identities(Members& members, const AccessRecord& record) {
  const bool inbound = record.direction == Direction::inbound;
  const std::string_view peer = record.peer_identity ? std::string_view{record.peer_identity->id.text()} : std::string_view{};
  const std::string_view own =
      record.own_identity && record.tls_established ? std::string_view{record.own_identity->svid.id.text()} : std::string_view{};
  const std::string_view source = inbound ? peer : own;
  const std::string_view destination = inbound ? own : peer;
  if (!source.empty()) members.text("source.spiffe_id", source);
  if (!destination.empty()) members.text("destination.spiffe_id", destination);
  if (!peer.empty()) {
    members.text("identity", "tls");
  } else if (record.identity_by_address) {
    members.text("identity", "address");
  }
}

void append_tls(Members& members, const AccessRecord& record) {
  if (record.plaintext) members.truth("plaintext", true);
  members.truth("tls.established", record.tls_established);
  if (!record.tls_established) return;
  if (!record.tls_version.empty()) members.text("tls.protocol.version", record.tls_version);
  if (!record.tls_cipher.empty()) members.text("tls.cipher", record.tls_cipher);
  if (!record.tls_group.empty()) members.text("tls.curve", record.tls_group);
  members.truth("tls.resumed", record.tls_resumed);
}

void append_rule(std::string& out, const RuleOrigin& origin, Direction direction) {
  out += '[';
  Members rule{out};
  rule.text("kind", "NetworkPolicy");
  rule.text("namespace", origin.ns);
  rule.text("name", origin.policy);
  rule.text("direction", name_of(policy_direction(direction)));
  rule.number("rule_index", origin.rule);
  if (origin.peer >= 0) rule.number("peer_index", static_cast<std::uint64_t>(origin.peer));
  if (origin.peer == RuleOrigin::annotation) rule.text("annotation", allow_spiffe_ids_annotation);
  rule.end();
  out += ']';
}

// The policies whose isolation refused the connection, in this plane.
void append_isolating(Members& members, const AccessRecord& record, Plane plane, std::string_view prefix) {
  if (record.snapshot == nullptr) return;
  const AllowDirection& allow = record.snapshot->allow_list().direction(policy_direction(record.direction));
  std::string& out = members.key(std::string(prefix) + "isolating");
  out += '[';
  bool first = true;
  for (const IsolatingPolicy& isolating : allow.isolating) {
    if (!counts_in(plane, isolating)) continue;
    if (!first) out += ',';
    first = false;
    Members policy{out};
    policy.text("kind", "NetworkPolicy");
    policy.text("namespace", isolating.ns);
    policy.text("name", isolating.policy);
    policy.end();
  }
  out += ']';
  const bool by_default = allow.default_deny && (plane == Plane::pending || *allow.default_deny == EnforcementMode::enforce);
  if (by_default) members.truth(std::string(prefix) + "default_deny", true);
}

// `name` for a rule that matched; "<prefix>basis" (and what isolated the pod) where none did.
void append_decision(Members& members, const AccessRecord& record, Plane plane, std::string_view name, std::string_view prefix) {
  const Decision& decision = plane == Plane::enforced ? record.verdict.enforced : record.verdict.pending;
  if (decision.origin != nullptr) {
    append_rule(members.key(name), *decision.origin, record.direction);
    return;
  }
  members.text(std::string(prefix) + "basis", name_of(decision.basis));
  if (decision.basis == Basis::no_rule) append_isolating(members, record, plane, prefix);
}

void append_policy(Members& members, const AccessRecord& record) {
  // An opening record that precedes the decision has no verdict yet.
  if (!record.at_open || record.decided || record.self) members.text("verdict", name_of(verdict_label(record)));
  if (record.decided) {
    const auto word = [](const Decision& decision) { return name_of(decision.allowed ? VerdictLabel::forwarded : VerdictLabel::dropped); };
    const bool differs = record.verdict.differs();
    if (differs) members.text("policy.enforced_verdict", word(record.verdict.enforced));
    append_decision(members, record, Plane::enforced, "policy.enforced", "policy.");
    if (differs) {
      members.text("policy.pending_verdict", word(record.verdict.pending));
      append_decision(members, record, Plane::pending, "policy.pending", "policy.pending_");
    }
  } else if (record.self) {
    members.text("policy.basis", "self");
  }
  if (record.snapshot != nullptr) members.number("policy.generation", record.snapshot->generation());
}

void append_close(Members& members, const AccessRecord& record) {
  members.text("close.reason", name_of(record.reason));
  members.text("close.by", name_of(record.closed_by));
  if (!record.detail.empty()) members.text("close.detail", record.detail);
}

}  // namespace

std::string_view name_of(ClosedBy by) {
  switch (by) {
    case ClosedBy::source: return "source";
    case ClosedBy::destination: return "destination";
    case ClosedBy::proxy: return "proxy";
  }
  return "";
}

VerdictLabel verdict_label(const AccessRecord& record) {
  if (!record.decided) return record.self ? VerdictLabel::forwarded : VerdictLabel::dropped;
  if (record.verdict.differs()) return VerdictLabel::audit;
  return record.verdict.allowed() ? VerdictLabel::forwarded : VerdictLabel::dropped;
}

void append_record(std::string& out, const AccessRecord& record) {
  Members members{out};
  append_time(members.key("@timestamp"), record.started);
  members.text("event", record.at_open ? "open" : "close");
  if (!record.at_open) append_milliseconds(members.key("duration_ms"), record.duration);
  members.text("direction", name_of(record.direction));
  append_endpoints(members, record);
  append_identities(members, record);
  append_tls(members, record);
  if (!record.at_open) {
    members.number("bytes_sent", record.bytes_sent);
    members.number("bytes_recv", record.bytes_received);
  }
  append_policy(members, record);
  if (!record.at_open) append_close(members, record);
  if (record.connection_id) append_hex(members.key("connection.id"), *record.connection_id);
  if (record.stream != 0) members.number("connection.stream", record.stream);
  members.end();
}

std::string format_record(const AccessRecord& record) {
  std::string line;
  append_record(line, record);
  return line;
}

}  // namespace postern
