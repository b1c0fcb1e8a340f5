// One worker of the server with its listeners and its thread.
#pragma once

#include "proxy/server.hpp"

namespace postern {

struct Server::Unit {
  Unit(std::size_t index, const Config& config, AccessLog& access_log, Log& log, WorkerCounters& counters)
      : worker(index, config, access_log, log, counters) {}
  Worker worker;
  std::vector<std::unique_ptr<Listener>> listeners;
  std::thread thread;
};

}  // namespace postern
