// What each path of the health port and of the admin socket answers (docs/admin.md).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <vector>

#include "base/http_service.hpp"
#include "base/log.hpp"
#include "proxy/admin.hpp"
#include "proxy/http_probe.hpp"

namespace postern {

// Everything that the answers are made of. REQUIRES: outlives the services.
struct AdminSources {
  AdminBackend& backend;
  std::vector<const WorkerCounters*> counters;
  Log& log;
};

// The health port: anybody can reach it, so it says little and changes nothing.
boost::asio::awaitable<HttpAnswer> answer_health(const AdminSources& sources, HttpProbes& probes, HttpRequest request);

// The admin socket: JSON, for the owner of the sidecar.
HttpAnswer answer_admin(const AdminSources& sources, const HttpRequest& request);

// 200 when the application accepts a TCP connection at that port within a second, on loopback or at the address where the health port was
// asked, else 503.
boost::asio::awaitable<HttpAnswer> probe_application(SocketAddress asked_at);

}  // namespace postern
