// SocketDeadline: closes an Asio socket at a deadline, unless its scope ends first. Asio 1.81 has no cancel_after.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <memory>

namespace postern {

class SocketDeadline {
 public:
  using Socket = boost::asio::ip::tcp::socket;

  // REQUIRES: `executor` is the socket's, and runs on one thread; the socket outlives this.
  SocketDeadline(const boost::asio::any_io_executor& executor, std::chrono::milliseconds after, Socket& socket)
      : timer_(executor), state_(std::make_shared<State>()) {
    state_->socket = &socket;
    timer_.expires_after(after);
    timer_.async_wait([state = state_](const boost::system::error_code& ec) {
      if (ec || state->socket == nullptr) return;
      state->passed = true;
      boost::system::error_code ignored;
      state->socket->close(ignored);
    });
  }
  SocketDeadline(const SocketDeadline&) = delete;
  SocketDeadline& operator=(const SocketDeadline&) = delete;
  ~SocketDeadline() { state_->socket = nullptr; }
  bool passed() const { return state_->passed; }

 private:
  // Shared with the timer's handler, which may run once more after this is gone.
  struct State {
    Socket* socket = nullptr;
    bool passed = false;
  };
  boost::asio::steady_timer timer_;
  std::shared_ptr<State> state_;
};

}  // namespace postern
