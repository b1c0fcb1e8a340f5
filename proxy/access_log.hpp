// The access log: one JSON object per connection at its end, written off the connection path by a thread of its own.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
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

// What the log says of one connection. Plain values and references to immutable things: filling it in formats nothing.
struct AccessRecord {
  bool at_open = false;  // an opening record (accessLog.atOpen)
  Direction direction = Direction::inbound;
  std::chrono::system_clock::time_point started;
  std::chrono::nanoseconds duration{0};
  SocketAddress source;                  // of the connection's TCP peer or the application, as this side sees it
  SocketAddress destination;             // resolved
  SocketAddress original_destination;    // as the application dialled it
  std::shared_ptr<const PolicySnapshot> snapshot;  // keeps the next three alive
  const Workload* source_workload = nullptr;
  const Workload* destination_workload = nullptr;
  std::string_view service;              // lives in the snapshot
  std::shared_ptr<const PeerIdentity> peer_identity;  // only if cryptographically verified
  std::shared_ptr<const X509Context> own_identity;    // set when TLS was established
  bool plaintext = false;
  bool identity_by_address = false;      // permissive mode matched a peer set by address
  bool tls_established = false;
  bool tls_resumed = false;
  std::string_view tls_version;          // static strings of OpenSSL
  std::string_view tls_cipher;
  std::string_view tls_group;
  std::uint64_t bytes_sent = 0;          // towards the destination
  std::uint64_t bytes_received = 0;      // from the destination
  bool decided = false;                  // verdict is meaningful
  Verdict verdict;
  bool self = false;                     // the pod's own traffic to itself
  Reason reason = Reason::internal_error;
  ClosedBy closed_by = ClosedBy::proxy;
  std::string_view detail;               // static text that narrows the reason (certificate error, identity error, peer's reason)
  std::optional<std::array<std::uint8_t, 16>> connection_id;  // from the TLS exporter, the same on both sides
  std::uint32_t stream = 0;              // number on its TLS connection, from 1; 0: no frames
};

VerdictLabel verdict_label(const AccessRecord& record);

// One line of JSON with the field names of docs/access-log.md, without the newline.
std::string format_record(const AccessRecord& record);

// The consumer: one thread, one bounded single-producer queue per worker.
class AccessLog {
 public:
  class Queue;  // one per worker

  // Opens the file (or stdout, or nothing).
  static Result<std::unique_ptr<AccessLog>> open(const Config& config, std::vector<WorkerCounters*> counters);
  ~AccessLog();  // writes what is queued, then ends the thread

  // Called by worker `index` only. Full: counted in that worker's access_records_dropped, never waits.
  void submit(std::size_t index, AccessRecord&& record);
  // Opens the file anew by its name (log rotation; SIGUSR1).
  void reopen();

 private:
  struct State;
  explicit AccessLog(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace postern
