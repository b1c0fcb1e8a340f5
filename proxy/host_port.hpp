// What config_value::HostPortList has checked, split.
#pragma once

#include <string>
#include <utility>

namespace postern {

// "host:port" or "[v6]:port", as host (without brackets) and port. REQUIRES: a value that HostPortList read.
inline std::pair<std::string, std::string> split_host_port(const std::string& text) {
  const auto colon = text.rfind(':');
  std::string host = text.substr(0, colon);
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  return {host, text.substr(colon + 1)};
}

}  // namespace postern
