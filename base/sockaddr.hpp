// The kernel's socket addresses and ours.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/ip.hpp"

namespace postern {

// REQUIRES: the family is AF_INET or AF_INET6; anything else yields 0.0.0.0:0.
SocketAddress from_sockaddr(const sockaddr_storage& from);
// Returns the length.
socklen_t to_sockaddr(const SocketAddress& from, sockaddr_storage& to);

}  // namespace postern
