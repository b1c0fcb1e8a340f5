// SourcePorts: which local ports the sidecar's own connections leave from.
//
// Conntrack knows a connection by addresses and ports alone. For 10 s after a reset it goes on doing to a new connection with the
// same four numbers what NAT did to the old one (nf_conntrack_proto_tcp.c, TCP_CONNTRACK_CLOSE). An application's connection was
// redirected, the sidecar's to the same destination is not: neither may inherit from the other. So they draw from different halves
// of the local port range: connect(2) prefers ports of the parity of the range's first (inet_hashtables.c, __inet_hash_connect),
// the sidecar takes the others, and of those none that an application's connection used a moment ago.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "base/ip.hpp"

namespace postern {

// Shared by all workers.
class SourcePorts {
 public:
  // In the spelling of the sysctls net.ipv4.ip_local_port_range and ip_local_reserved_ports, which hold for both families.
  // Unreadable: no candidates, and the kernel chooses.
  SourcePorts(std::string_view range, std::string_view reserved);
  // Of the network namespace that this process is in.
  static std::unique_ptr<SourcePorts> of_this_namespace();

  // An application's connection from that port has ended. Thread-safe.
  void ended(Port port, std::chrono::steady_clock::time_point now);
  // Less than `memory` ago? Thread-safe.
  bool ended_lately(Port port, std::chrono::steady_clock::time_point now) const;
  static constexpr std::chrono::seconds memory{16};  // nf_conntrack_tcp_timeout_close is 10

  const std::vector<Port>& candidates() const { return candidates_; }

 private:
  std::vector<Port> candidates_;
  std::array<std::atomic<std::uint8_t>, 65536> ended_{};  // in units of 4 s, 1 to 255; 0: never
};

// One worker's turn through the candidates.
class SourcePortTurn {
 public:
  SourcePortTurn(SourcePorts& ports, std::uint32_t seed);

  // The port to try next (RFC 6056 section 3.3.5, random increments); nothing where no candidate was found at once.
  std::optional<Port> next(std::chrono::steady_clock::time_point now);
  SourcePorts& ports() { return ports_; }

 private:
  SourcePorts& ports_;
  std::uint32_t random_;
  std::size_t at_;
};

}  // namespace postern
