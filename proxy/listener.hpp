// Listener: one accepting socket of one worker.
#pragma once

#include "proxy/connection.hpp"

namespace postern {

class Listener final : public Waiter {
 public:
  // Takes ownership of the listening descriptor.
  Listener(Worker& worker, Direction direction, int fd);
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  void wake() override;

 private:
  void admit(int fd, const SocketAddress& source);

  static constexpr int accepts_per_wake = 64;
  Worker& worker_;
  Direction direction_;
  Socket socket_;
  Timer retry_;  // after running out of descriptors
};

}  // namespace postern
