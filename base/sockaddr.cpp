#include "base/sockaddr.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>

namespace postern {

SocketAddress from_sockaddr(const sockaddr_storage& from) {
  if (from.ss_family == AF_INET) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(from);
    std::array<std::uint8_t, 4> bytes{};
    std::memcpy(bytes.data(), &in.sin_addr, bytes.size());
    return {IpAddress::v4(bytes), Port{ntohs(in.sin_port)}};
  }
  if (from.ss_family == AF_INET6) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(from);
    std::array<std::uint8_t, 16> bytes{};
    std::memcpy(bytes.data(), &in.sin6_addr, bytes.size());
    return {IpAddress::v6(bytes), Port{ntohs(in.sin6_port)}};
  }
  return {};
}

socklen_t to_sockaddr(const SocketAddress& from, sockaddr_storage& to) {
  std::memset(&to, 0, sizeof to);
  if (from.address.is_v4()) {
    auto& in = reinterpret_cast<sockaddr_in&>(to);
    in.sin_family = AF_INET;
    in.sin_port = htons(from.port.number);
    std::memcpy(&in.sin_addr, from.address.bytes().data(), 4);
    return sizeof in;
  }
  auto& in = reinterpret_cast<sockaddr_in6&>(to);
  in.sin6_family = AF_INET6;
  in.sin6_port = htons(from.port.number);
  std::memcpy(&in.sin6_addr, from.address.bytes().data(), 16);
  return sizeof in;
}

}  // namespace postern
