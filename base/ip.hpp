// IP addresses, CIDR blocks and ports. An IPv4-mapped IPv6 address is the IPv4 address, everywhere.
#pragma once

#include <array>
#include <compare>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace postern {

enum class IpFamily : std::uint8_t { v4, v6 };

class IpAddress {
 public:
  IpAddress() = default;  // 0.0.0.0
  static IpAddress v4(std::array<std::uint8_t, 4> bytes);
  // Normalises ::ffff:a.b.c.d to the IPv4 address a.b.c.d.
  static IpAddress v6(const std::array<std::uint8_t, 16>& bytes);
  // Strict textual form: no leading zeros in IPv4 octets, no zone, no brackets.
  static Result<IpAddress> parse(std::string_view text);

  IpFamily family() const { return family_; }
  bool is_v4() const { return family_ == IpFamily::v4; }
  bool is_loopback() const;
  unsigned bits() const { return is_v4() ? 32U : 128U; }
  // The first 4 (IPv4) or 16 bytes, network order.
  const std::array<std::uint8_t, 16>& bytes() const { return bytes_; }
  // The address with all bits after the first `prefix` cleared.
  IpAddress masked(unsigned prefix) const;
  std::string text() const;

  auto operator<=>(const IpAddress&) const = default;

 private:
  std::array<std::uint8_t, 16> bytes_{};
  IpFamily family_ = IpFamily::v4;
};

class Cidr {
 public:
  Cidr() = default;
  // Host bits beyond the prefix are masked away. REQUIRES: prefix <= address.bits()
  Cidr(IpAddress address, unsigned prefix) : address_(address.masked(prefix)), prefix_(prefix) {}
  // Accepts what the Kubernetes API accepts (host bits, leading zeros, IPv4-mapped), and masks it.
  static Result<Cidr> parse(std::string_view text);

  const IpAddress& address() const { return address_; }
  unsigned prefix() const { return prefix_; }
  bool contains(const IpAddress& address) const;
  // True when every address of `other` is in this block.
  bool contains(const Cidr& other) const;
  std::string text() const;

  auto operator<=>(const Cidr&) const = default;

 private:
  IpAddress address_;
  unsigned prefix_ = 0;
};

// A TCP, UDP or SCTP port number, host byte order.
struct Port {
  std::uint16_t number = 0;
  auto operator<=>(const Port&) const = default;
};

struct SocketAddress {
  IpAddress address;
  Port port;
  std::string text() const;  // 10.0.0.1:80, [fd00::1]:80
  auto operator<=>(const SocketAddress&) const = default;
};

enum class Protocol : std::uint8_t { tcp, udp, sctp };
std::string_view name_of(Protocol protocol);  // TCP, UDP, SCTP

struct IpAddressHash {
  std::size_t operator()(const IpAddress& a) const noexcept;
};
struct SocketAddressHash {
  std::size_t operator()(const SocketAddress& a) const noexcept;
};

}  // namespace postern
