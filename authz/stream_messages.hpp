// The messages between a sidecar and the control plane (architecture section 5; docs/stream.md): JSON objects, one per WebSocket text
// message.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "authz/resource.hpp"
#include "authz/text_edits.hpp"
#include "base/document.hpp"
#include "base/ip.hpp"
#include "base/result.hpp"

namespace postern {

inline constexpr std::string_view stream_path = "/v1/stream";
inline constexpr std::size_t sidecar_message_bytes = 4U << 20;   // the longest that a sidecar may send: a Hello with 20,000 names
inline constexpr std::size_t control_message_bytes = 64U << 20;  // the longest that a sidecar takes

// How far into the API server's history a state reaches: the largest resourceVersion of an object or deletion in it, per kind
// ("pods", "networkpolicies", ...). Another epoch (the store was reset or restored) starts a new history.
struct Mark {
  std::string epoch;
  std::map<std::string, std::uint64_t> versions;

  // Whether every kind of `other` has been reached. REQUIRES: the same epoch.
  bool reaches(const Mark& other) const;
  void advance_to(const Mark& other);  // the larger of each kind; another epoch replaces it
  bool operator==(const Mark&) const = default;
};

// Sidecar: the first message of a stream. `have`: name -> hash of what it holds already.
struct Hello {
  std::string version;  // of the sidecar's program
  Mark mark;            // empty epoch: it has nothing
  std::map<std::string, std::string> have;
  bool operator==(const Hello&) const = default;
};
// Sidecar: every worker enforces the update, also on live connections.
struct Ack {
  std::uint64_t nonce = 0;
  bool operator==(const Ack&) const = default;
};
// Sidecar: the update was refused whole, and the last good state stays.
struct Nack {
  std::uint64_t nonce = 0;
  std::string reason;
  bool operator==(const Nack&) const = default;
};
// Sidecar: what is at this address? At most one answer per question; what is found joins the stream's resources.
struct Lookup {
  std::uint64_t id = 0;
  IpAddress address;
  bool operator==(const Lookup&) const = default;
};
// Sidecar: these looked-up resources are no longer needed.
struct Forget {
  std::vector<std::string> names;
  bool operator==(const Forget&) const = default;
};
using SidecarMessage = std::variant<Hello, Ack, Nack, Lookup, Forget>;

// A resource as edits to the body that the sidecar holds: one member of a large set is a small message. The edits count one after the
// other, and what they come to must have the hash: who holds another base, or gets another hash, refuses the update and is sent the whole.
struct ResourceDelta {
  std::string name;
  std::string base;  // the hash of what they are edits to
  std::string hash;  // of what they make of it
  std::vector<TextEdit> edits;
  bool operator==(const ResourceDelta&) const = default;
};
inline constexpr std::size_t resource_edits_max = 1024;  // of one resource
// The body that the edits make of `base`. Fails where they do not fit it, or make it longer than a body may be. The hash is the caller's to
// compare: this library has no digests.
Result<std::string> edited_body(std::string base, const ResourceDelta& delta);

// Control: what changed since the last update. Applied whole or not at all.
struct Update {
  std::uint64_t nonce = 0;
  Mark mark;
  std::vector<ResourcePtr> resources;
  std::vector<ResourceDelta> deltas = {};
  std::vector<std::string> removed;
};
// Control: the answer to a Lookup. Where `known`, the resources came in an Update before this.
struct LookupAnswer {
  std::uint64_t id = 0;
  bool known = false;
  std::string error;  // not empty: not answered (rate limit), ask again later
  bool operator==(const LookupAnswer&) const = default;
};
// Control: the stream is alive but cannot serve yet, and why (its own watch has not reached the sidecar's mark).
struct NotReady {
  std::string reason;
  bool operator==(const NotReady&) const = default;
};
using ControlMessage = std::variant<Update, LookupAnswer, NotReady>;

std::string encode(const SidecarMessage& message);
std::string encode(const ControlMessage& message);
// Bounded by the sizes above and by DocumentLimits; unknown types and fields are refused. A resource's body is the text that its hash was
// made of, and is not looked into: decode_into() does.
Result<SidecarMessage> decode_sidecar_message(std::string_view text);
Result<ControlMessage> decode_control_message(std::string_view text);

// Parses the body within limits and reads it into the part that its name says: see authz/resource.hpp.
Result<void> decode_into(SnapshotParts& parts, const Resource& resource);

}  // namespace postern
