// The access log: one JSON object per connection at its end, written off the connection path by a thread of its own.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "authz/snapshot.hpp"
#include "certs/tls_context.hpp"
#include "proxy/config.hpp"
#include "proxy/counters.hpp"
#include "proxy/reason.hpp"

namespace postern {

// Which end closed first.
enum class ClosedBy : std::uint8_t { source, destination, proxy };
std::string_view name_of(ClosedBy by);

// A copy of a short text without an allocation, cut at `capacity` bytes: what OpenSSL's names point into ends with its SSL_CTX,
// which a record outlives.
template <std::size_t capacity>
class ShortText {
 public:
  constexpr ShortText() = default;
  template <class Text>
  requires std::convertible_to<const Text&, std::string_view>
  constexpr ShortText(const Text& text) {
    const std::string_view view = text;
    size_ = static_cast<std::uint8_t>(std::min(view.size(), capacity));
    std::copy_n(view.begin(), size_, bytes_.begin());
  }
  constexpr operator std::string_view() const { return {bytes_.data(), size_}; }
  constexpr bool empty() const { return size_ == 0; }

 private:
  static_assert(capacity < 256);
  std::array<char, capacity> bytes_{};
  std::uint8_t size_ = 0;
};

// What the log says of one connection. Plain values and references to immutable things: filling it in formats nothing.
struct AccessRecord {
  bool at_open = false;  // an opening record (accessLog.atOpen)
  Direction direction = Direction::inbound;
  std::chrono::system_clock::time_point started;
  std::chrono::nanoseconds duration{0};
  SocketAddress source;                            // of the connection's TCP peer or the application, as this side sees it
  SocketAddress destination;                       // resolved
  SocketAddress original_destination;              // as the application dialled it
  std::shared_ptr<const PolicySnapshot> snapshot;  // keeps the next two and the verdict's origins alive
  const Workload* source_workload = nullptr;
  const Workload* destination_workload = nullptr;
  std::string service;                                // "namespace/name", where a Service was resolved
  std::shared_ptr<const PeerIdentity> peer_identity;  // only if cryptographically verified
  std::shared_ptr<const X509Context> own_identity;    // set when TLS was established
  bool plaintext = false;
  bool identity_by_address = false;  // permissive mode matched a peer set by address
  bool tls_established = false;
  bool tls_resumed = false;
  ShortText<31> tls_version;  // as TlsFacts has them
  ShortText<31> tls_cipher;
  ShortText<31> tls_group;
  std::uint64_t bytes_sent = 0;      // towards the destination
  std::uint64_t bytes_received = 0;  // from the destination
  bool decided = false;              // verdict is meaningful
  Verdict verdict;
  bool self = false;  // the pod's own traffic to itself
  Reason reason = Reason::internal_error;
  ClosedBy closed_by = ClosedBy::proxy;
  ShortText<95> detail;  // text that narrows the reason (certificate error, identity error, peer's reason)
  std::optional<std::array<std::uint8_t, 16>> connection_id;  // from the TLS exporter, the same on both sides
  std::uint32_t stream = 0;                                   // number on its TLS connection, from 1; 0: no frames
};

// AUDIT where the pending verdict differs from the enforced one; else FORWARDED where this side's policy allowed it (and the pod's
// own traffic to itself), DROPPED where it did not or was never asked.
VerdictLabel verdict_label(const AccessRecord& record);

// One line of JSON with the field names of docs/access-log.md, without the newline.
std::string format_record(const AccessRecord& record);
void append_record(std::string& out, const AccessRecord& record);

// The consumer: one thread, one bounded single-producer queue per worker. A slow reader blocks this thread only.
class AccessLog {
 public:
  class Queue;  // one per worker

  // Opens the file (or stdout, or nothing) and starts the thread. `counters`: one for each worker; they outlive the log.
  static Result<std::unique_ptr<AccessLog>> open(const Config& config, std::vector<WorkerCounters*> counters);
  // Writes what is queued, then ends the thread; what a stuck reader has not taken after two seconds is dropped and counted.
  ~AccessLog();

  // Called by worker `index` only. Full: counted in that worker's access_records_dropped, never waits.
  void submit(std::size_t index, AccessRecord&& record);
  // Opens the file anew by its name (log rotation; SIGUSR1). If that fails, the old one stays. From any thread; returns at once.
  void reopen();

 private:
  class Output;
  struct State;
  explicit AccessLog(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace postern
