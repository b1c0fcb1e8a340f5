#include "proxy/original_destination.hpp"

#include <netinet/in.h>
#include <sys/socket.h>

#include "base/sockaddr.hpp"
#include "proxy/socket.hpp"

namespace postern {

namespace {
// SO_ORIGINAL_DST of <linux/netfilter_ipv4.h> and IP6T_SO_ORIGINAL_DST of <linux/netfilter_ipv6/ip6_tables.h>: the kernel's headers
// cannot be included beside the C library's.
constexpr int so_original_dst = 80;
}  // namespace

std::optional<SocketAddress> original_destination(int fd) {
  const SocketAddress local = local_address(fd);
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  const int level = local.address.is_v4() ? IPPROTO_IP : IPPROTO_IPV6;
  const int failed = getsockopt(fd, level, so_original_dst, &address, &length);
  if (failed != 0) return std::nullopt;
  const SocketAddress original = from_sockaddr(address);
  if (original == local) return std::nullopt;
  return original;
}

}  // namespace postern
