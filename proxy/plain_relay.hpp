// Between two plaintext sockets: splice(2) both ways, no byte enters this process.
#pragma once

#include <sys/types.h>

#include <array>
#include <optional>
#include <vector>

#include "proxy/relay.hpp"

namespace postern {

// Pipes of one worker, kept for the next connection that moves bytes. A pipe is held only while bytes are in it.
class PipePool {
 public:
  struct Pipe {
    int read_end = -1;
    int write_end = -1;
  };
  ~PipePool();
  // Nothing: no descriptors left.
  std::optional<Pipe> take();
  // REQUIRES: the pipe is empty.
  void give_back(Pipe pipe);
  static void discard(Pipe pipe);

 private:
  static constexpr std::size_t kept_max = 64;
  std::vector<Pipe> pipes_;
};

class PlainRelay final : public Relay {
 public:
  // `guard_app`: the bytes from `app` are held until they are seen not to be a ClientHello of ours (or the deadline passes): somebody
  // who believes we expect TLS. Where `app` is the side that connected to us.
  PlainRelay(EventLoop& loop, WorkerBuffers& buffers, PipePool& pipes, Socket& app, Socket& peer, std::chrono::milliseconds idle_limit,
             std::optional<std::chrono::milliseconds> guard_app = {});
  ~PlainRelay();

 private:
  struct Flow {
    Socket& from;
    Socket& to;
    std::uint64_t& bytes;
    std::optional<PipePool::Pipe> pipe;
    std::size_t in_pipe = 0;
    bool ended = false;  // FIN read
    bool fin_sent = false;
  };
  bool pump() override;
  void abort_ends() override {}  // guard() has said so
  void release_ends() override;
  bool pump_flow(Flow& flow, bool from_app);
  bool drain_pipe(Flow& flow, bool to_is_app);
  ssize_t read_past_urgent(Flow& flow);
  // True while the first bytes from `app` must wait.
  bool guarded();
  void end_guard();

  WorkerBuffers& buffers_;
  PipePool& pipes_;
  std::array<Flow, 2> flows_;  // from app, to app
  bool first_end_by_app_ = false;
  bool guard_ = false;
  Timer guard_timer_;
};

}  // namespace postern
