// The two pumps between an application's socket and what carries its bytes. They run per wake-up, so they are plain callbacks;
// outside, a relay is one awaitable: co_await relay;
#pragma once

#include <chrono>
#include <coroutine>
#include <cstdint>
#include <vector>

#include "proxy/access_log.hpp"
#include "proxy/peer_connection.hpp"
#include "proxy/reason.hpp"

namespace postern {

// Shared by the connections of one worker; empty between wake-ups.
struct WorkerBuffers {
  GatherBuffer gather;
  std::vector<std::uint8_t> plain = std::vector<std::uint8_t>(2 * frame_bytes_max);
  // The application's bytes are read for two frames at once: fewer system calls and window updates a byte. Room for END behind them.
  static constexpr std::size_t frames = 2;
  std::vector<std::uint8_t> frame = std::vector<std::uint8_t>(frames * frame_bytes_max + frame_header_bytes);
};

// What RESET tells the other side of this reason (docs/wire.md).
ResetCode reset_code(Reason reason);

// How a relay ended, as this side saw it. `app` is the socket's end, `peer` the other one.
struct RelayEnd {
  Reason reason = Reason::internal_error;
  bool by_app = false;    // the application's end closed or failed first
  bool by_proxy = false;  // policy, idle limit, drain
  std::string_view detail;
};

// What both relays have in common: being awaited, being stopped, the idle limit.
class Relay : public Waiter {
 public:
  // Ends it from outside (policy, drain). Takes effect in this turn or the next one.
  void stop(Reason reason);
  const RelayEnd& end() const { return end_; }
  std::uint64_t from_app_bytes() const { return from_app_bytes_; }
  std::uint64_t to_app_bytes() const { return to_app_bytes_; }

  // Awaitable: suspends until the relay has ended.
  bool await_ready();
  void await_suspend(std::coroutine_handle<> handle) { waiting_ = handle; }
  const RelayEnd& await_resume() const { return end_; }

  void wake() final;

 protected:
  Relay(EventLoop& loop, Watch& app, Watch& peer, std::chrono::milliseconds idle_limit);
  ~Relay();
  // Moves what can be moved now. True: there is more to do at once (it stopped for fairness).
  virtual bool pump() = 0;
  // Tells the other ends, beyond what guard() does, that this was no clean end.
  virtual void abort_ends() = 0;
  // It was one.
  virtual void release_ends() = 0;
  // Until release() the application's socket ends with RST, even where this process is killed: half a transfer never looks complete.
  static void guard(Socket& socket) { socket.abort(); }
  static void release(Socket& socket);
  void finish(Reason reason, bool by_app, std::string_view detail = {});
  bool finished() const { return finished_; }

  static constexpr int rounds_per_wake = 4;  // of up to 128 KB each way, then the others have their turn
  std::uint64_t from_app_bytes_ = 0;
  std::uint64_t to_app_bytes_ = 0;

 private:
  EventLoop& loop_;
  Watch& app_watch_;
  Watch& peer_watch_;
  std::chrono::milliseconds idle_limit_;
  std::uint64_t bytes_at_last_check_ = 0;
  Timer idle_timer_;
  std::coroutine_handle<> waiting_;
  bool finished_ = false;
  RelayEnd end_;
};

// Between the application and an mTLS peer: frames of one stream (postern/1), or raw bytes and close_notify (plain SPIFFE mTLS).
class TlsRelay final : public Relay {
 public:
  TlsRelay(EventLoop& loop, WorkerBuffers& buffers, PeerConnection& peer, Socket& app, std::chrono::milliseconds idle_limit)
      : Relay(loop, app.watch(), peer.tls.socket().watch(), idle_limit), buffers_(buffers), peer_(peer), app_(app) {
    guard(app_);
    app_.set_same_pod();
  }

 private:
  bool pump() override;
  void abort_ends() override;
  void release_ends() override { release(app_); }
  bool pump_from_app();
  bool gather_from_app();
  // Encrypts what was read into `frame`, and the end where it has been read. False: the TLS state is broken.
  bool send_frames(std::size_t bytes);
  bool pump_to_app();
  // Delivers one buffer of the peer's bytes. False: the relay has ended or the application takes no more now.
  bool deliver(std::span<const std::uint8_t> bytes);
  bool deliver_framed(std::span<const std::uint8_t> bytes);
  bool control_frame(const FramePiece& piece, std::span<const std::uint8_t> rest);
  bool write_to_app(std::span<const iovec> pieces);
  void forward_end();
  void finish_if_done();

  WorkerBuffers& buffers_;
  PeerConnection& peer_;
  Socket& app_;
  std::vector<std::uint8_t> app_pending_;  // decrypted, not yet taken by the application; freed when empty
  std::size_t app_pending_sent_ = 0;
  bool app_ended_ = false;   // FIN read and END sent
  bool peer_ended_ = false;  // END received; FIN goes out when everything before it has
  bool fin_sent_ = false;
  bool first_end_by_app_ = false;
};

}  // namespace postern
