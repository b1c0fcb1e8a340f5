// What inbound and outbound connections have in common: their record, being revoked, connecting, closing gracefully.
#pragma once

#include <memory>
#include <string>

#include "proxy/worker.hpp"

namespace postern {

struct Accepted {
  int fd = -1;
  SocketAddress source;
  std::chrono::steady_clock::time_point at;
};

// The access record of one application connection: opened here, counted and written exactly once, when this scope ends.
class Record {
 public:
  Record(Worker& worker, Direction direction, const SocketAddress& source, std::chrono::steady_clock::time_point began);
  ~Record();
  Record(const Record&) = delete;
  Record& operator=(const Record&) = delete;

  void set_destination(const SocketAddress& original);
  void set_peer(const PeerConnection& peer);
  void set_judgement(const Judgement& judgement);
  void set_relay(const Relay& relay, Direction app_is);
  void end(Reason reason, std::string_view detail = {}, ClosedBy by = ClosedBy::proxy);
  // Writes the record of the opening, where the configuration asks for it.
  void opened();
  // Nothing happened that anyone would want to read (an idle connection closed): no record, no count.
  void discard() { discarded_ = true; }

  AccessRecord fields;

 private:
  Worker& worker_;
  std::chrono::steady_clock::time_point began_;
  bool discarded_ = false;
};

// An application connection under way, as LiveConnections sees it.
class Stream final : public LiveConnection {
 public:
  // `decided`: false for the pod's own traffic to itself.
  Stream(Worker& worker, ConnectionFacts facts, const Record& record, bool decided = true);

  // What a revocation interrupts: at most two sockets being waited on, or the relay once there is one.
  void waits_on(Socket* a, Socket* b = nullptr) { sockets_[0] = a, sockets_[1] = b; }
  void relays(Relay* relay) { relay_ = relay; }
  bool revoked() const { return revoked_; }
  Reason why() const { return why_; }

  void revoke(Reason reason) override;
  std::string describe() const override;
  bool decided() const override { return decided_; }

 private:
  const Record& record_;
  bool decided_;
  std::array<Socket*, 2> sockets_{};
  Relay* relay_ = nullptr;
  bool revoked_ = false;
  Reason why_ = Reason::finished;
};

struct Connected {
  std::unique_ptr<Socket> socket;  // null: `failed`
  Reason failed = Reason::finished;
  std::string_view detail;
};

// Connects within limits.connectTimeout. `refused` and `late` are the reasons of this direction.
Task<Connected> connect_socket(Worker& worker, SocketAddress to, Stream& stream, Reason refused, Reason late);

// Starts a handshake within limits.handshakeTimeout, counts it, and adopts its outcome. Reason::finished: done.
struct HandshakeOutcome {
  Reason reason = Reason::finished;
  std::string_view detail;
};
Task<HandshakeOutcome> run_handshake(Worker& worker, PeerConnection& peer, Direction direction);

// close_notify, FIN, and the peer's bytes discarded until its FIN (one second at most), so that what we sent last arrives.
void close_gracefully(Worker& worker, std::unique_ptr<PeerConnection> peer);

// Runs a connection's coroutine; an exception ends only it.
void start(Worker& worker, Task<void> task);

// The ports that belong to the sidecar itself.
bool is_reserved_port(const Config& config, Port port);

// inbound.cpp and outbound.cpp: from accept to close.
Task<void> serve_inbound(Worker& worker, Accepted accepted);
Task<void> serve_outbound(Worker& worker, Accepted accepted);

}  // namespace postern
