// ServiceTable: from the addresses that stand for a Service to the endpoints behind it (Kubernetes, Service and EndpointSlice).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/service_record.hpp"
#include "base/ip.hpp"

namespace postern {

// What one port of a Service leads to. TCP only: that is what a sidecar sees.
struct ServiceBackends {
  std::string service;                                    // namespace/name
  bool local_only = false;                                // internalTrafficPolicy: Local; counts for ClusterIPs only
  bool sticky = false;                                    // sessionAffinity: ClientIP
  std::array<std::vector<ServiceEndpoint>, 2> endpoints;  // by family, by address

  const std::vector<ServiceEndpoint>& of(IpFamily family) const { return endpoints[family == IpFamily::v4 ? 0 : 1]; }
};

class ServiceTable {
 public:
  // Of two Services with one address and port, or one node port, the first counts: give them by name.
  explicit ServiceTable(std::vector<ServiceRecord> records);

  // ClusterIP, external and load balancer addresses; null when no Service has this address and port.
  const ServiceBackends* at(const SocketAddress& address) const;
  // REQUIRES: the connection goes to an address of a node.
  const ServiceBackends* at_node_port(Port port) const;
  // The Service that has this ClusterIP ("namespace/name"), or nullptr.
  const std::string* owner_of(const IpAddress& cluster_ip) const;

 private:
  std::vector<ServiceBackends> backends_;
  std::unordered_map<SocketAddress, std::uint32_t, SocketAddressHash> by_address_;
  std::unordered_map<std::uint16_t, std::uint32_t> by_node_port_;
  std::unordered_map<IpAddress, std::string, IpAddressHash> cluster_ips_;
};

}  // namespace postern
