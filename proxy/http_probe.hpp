// HttpProbes: what the health port asks the application in the kubelet's place, for probes and lifecycle handlers that were an httpGet
// before the injector rewrote them (docs/admin.md).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <cstddef>
#include <map>
#include <string>

#include "authz/app_probe.hpp"
#include "base/http_service.hpp"
#include "base/log.hpp"

namespace postern {

// Of one thread.
class HttpProbes {
 public:
  explicit HttpProbes(Log& log) : log_(log) {}  // REQUIRES: `log` outlives this

  // Sends the request on to the application, at the address where the health port was asked, and answers what it answers, with 10 KB of the
  // body at most, which is what the kubelet reads. Redirects to the same address are followed. 502: no valid answer; 503: no connection, or
  // too many probes under way; 504: none in time; each with the reason in one line, which the log has once for each change. A lifecycle
  // handler is not answered at all then: to the kubelet any status is a success of it. REQUIRES: probe.scheme is not tcp, request.caller is
  // not null.
  boost::asio::awaitable<HttpAnswer> ask(AppProbe probe, HttpRequest request);

 private:
  HttpAnswer failed(const AppProbe& probe, unsigned status, const std::string& why);
  void note(const std::string& probe, const std::string& why);

  Log& log_;
  std::size_t under_way_ = 0;
  std::map<std::string, std::string> failures_;  // by probe, what the log says last
};

}  // namespace postern
