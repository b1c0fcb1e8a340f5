// What the probes of the application share (proxy/admin_probe.cpp, proxy/http_probe.cpp).
#pragma once

#include <boost/asio/ip/tcp.hpp>

#include "base/ip.hpp"

namespace postern {

inline boost::asio::ip::tcp::endpoint endpoint_of(const SocketAddress& address) {
  return {boost::asio::ip::make_address(address.address.text()), address.port.number};
}

// A port of the ephemeral range that nobody listens on can be connected with itself (simultaneous open): nobody is there.
inline bool is_connected_with_itself(const boost::asio::ip::tcp::socket& socket, const boost::asio::ip::tcp::endpoint& server) {
  boost::system::error_code unknown;
  return socket.local_endpoint(unknown) == server;
}

}  // namespace postern
