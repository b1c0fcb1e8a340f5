// Where a redirected connection was going.
#pragma once

#include <optional>

#include "base/ip.hpp"

namespace postern {

// SO_ORIGINAL_DST / IP6T_SO_ORIGINAL_DST. Nothing for a connection that was not redirected (it was made to our own listening
// address): such a connection is refused, so that no loop is possible.
std::optional<SocketAddress> original_destination(int fd);

}  // namespace postern
