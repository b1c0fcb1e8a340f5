// ServiceTable: from the addresses that stand for a Service to the pods behind it (Kubernetes, Service and EndpointSlice).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "authz/cluster.hpp"
#include "base/ip.hpp"

namespace postern {

// What one port of a Service leads to. TCP only: that is what a sidecar sees.
struct ServiceBackends {
  struct Endpoint {
    SocketAddress address;  // the pod's own, with the target port
    std::string node;
    bool operator==(const Endpoint&) const = default;
  };

  std::string service;                             // namespace/name
  bool local_only = false;                         // internalTrafficPolicy: Local
  bool sticky = false;                             // sessionAffinity: ClientIP
  std::array<std::vector<Endpoint>, 2> endpoints;  // by family, in the order of the pods' names

  const std::vector<Endpoint>& of(IpFamily family) const { return endpoints[family == IpFamily::v4 ? 0 : 1]; }
};

class ServiceTable {
 public:
  // Usable endpoints are ready pods that have neither ended nor are terminating; a named target port counts per pod.
  explicit ServiceTable(const ClusterView& view);

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
