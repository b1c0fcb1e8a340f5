// Worker: one thread, one loop, its listeners, connections, policy, identity and counters. Other threads only post to it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>

#include "base/log.hpp"
#include "certs/tls_context.hpp"
#include "proxy/access_log.hpp"
#include "proxy/config.hpp"
#include "proxy/connection_pool.hpp"
#include "proxy/event_loop.hpp"
#include "proxy/live_connections.hpp"
#include "proxy/plain_relay.hpp"
#include "proxy/source_ports.hpp"

namespace postern {

// An mTLS connection from a peer that waits for its next stream.
class IdleInbound : public ListHook {
 public:
  // Close it: identity or policy has changed, or we drain.
  virtual void close() = 0;
  ConnectionFacts facts;

 protected:
  ~IdleInbound() = default;
};

class Lookups;

class Worker {
 public:
  Worker(std::size_t index, const Config& config, AccessLog& access_log, Log& log, WorkerCounters& counters);
  ~Worker();

  // Runs until stop_when_closed() has done its work.
  void run();

  // Thread-safe: run `work` on this worker.
  void post(std::function<void()> work) { loop.post(std::move(work)); }

  // On this worker's thread:
  // New connections see it at once; `enforced` is called when every live one has been decided again.
  void adopt_policy(std::shared_ptr<const PolicySnapshot> snapshot, std::function<void()> enforced);
  // New connections use it; live ones go on, until limits.maxConnectionAge after the end of an SVID that was not renewed; but for
  // those of a trust domain whose bundle is gone, which end.
  void adopt_identity(std::shared_ptr<const TlsContext> context, std::shared_ptr<const X509Context> identity);
  // Whether the peer's trust domain is one that we have a bundle of. False for a live connection: the bundle was withdrawn meanwhile.
  bool trusts(const PeerIdentity& peer) const;
  void shut_down(Reason reason);  // ends every connection, then the loop

  // A connection has been accepted, and ends with this scope. Bounds are checked by the listener.
  class Admission;
  Reason may_admit(Direction direction, const IpAddress& source) const;  // Reason::finished: yes
  void shed(Direction direction, Reason reason, const SocketAddress& source);
  // Coroutines alive: the loop ends with the last of them.
  void task_started() { ++tasks_; }
  void task_ended();
  // A mistake of ours, caught at the edge of one connection.
  void report_exception(std::exception_ptr exception);

  const std::size_t index;
  const Config& config;
  AccessLog& access_log;
  Log& log;
  WorkerCounters& counters;
  EventLoop loop;
  WorkerBuffers buffers;
  PipePool pipes;
  LiveConnections live;
  ConnectionPool pool;
  IntrusiveList<IdleInbound> idle_inbound;
  std::shared_ptr<const PolicySnapshot> snapshot;  // null: no policy yet
  std::shared_ptr<const TlsContext> tls;           // null: no SVID yet
  std::shared_ptr<const X509Context> identity;
  std::unique_ptr<SourcePortTurn> source_ports;  // null: the kernel chooses
  Lookups* lookups = nullptr;                    // null: there is no control plane to ask
  std::uint32_t pick = 0;                        // turns through a Service's endpoints
  std::uint32_t handshakes = 0;                  // under way
  std::uint32_t lingering = 0;                   // being closed gracefully

 private:
  friend class Admission;
  void source_ended(Direction direction, const SocketAddress& source);
  std::uint32_t share(std::uint32_t whole) const;  // of a bound that holds for all workers together

  std::uint32_t tasks_ = 0;
  std::uint32_t connections_ = 0;
  std::unordered_map<IpAddress, std::uint32_t, IpAddressHash> per_source_;
  std::chrono::steady_clock::time_point last_shed_line_{};
  std::uint64_t shed_since_line_ = 0;
  bool shutting_down_ = false;
  Timer closing_;
  Timer expired_;  // limits.maxConnectionAge after our SVID's end
};

class Worker::Admission {
 public:
  Admission(Worker& worker, Direction direction, const SocketAddress& source);
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

 private:
  Worker& worker_;
  Direction direction_;
  SocketAddress source_;
};

}  // namespace postern
