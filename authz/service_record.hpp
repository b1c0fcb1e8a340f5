// ServiceRecord: a Service with its endpoints resolved, as a sidecar needs it (Kubernetes API: Service, EndpointSlice).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "authz/cluster.hpp"
#include "base/ip.hpp"

namespace postern {

// One address and port behind a Service.
struct ServiceEndpoint {
  SocketAddress address;           // the pod's own, with the target port
  std::string node;                // empty: not known
  std::optional<WorkloadKey> pod;  // nothing: an endpoint that is no pod

  bool operator==(const ServiceEndpoint&) const = default;
};

// What one TCP port of a Service leads to.
struct ServiceRecordPort {
  Port port;
  std::optional<Port> node_port;
  std::array<std::vector<ServiceEndpoint>, 2> endpoints;  // IPv4, IPv6; usable ones only, by address, each address once

  const std::vector<ServiceEndpoint>& of(IpFamily family) const { return endpoints[family == IpFamily::v4 ? 0 : 1]; }
  bool operator==(const ServiceRecordPort&) const = default;
};

struct ServiceRecord {
  ObjectKey key;
  std::vector<IpAddress> cluster_ips;      // empty for a headless Service
  std::vector<IpAddress> other_addresses;  // external IPs and load balancer addresses
  bool local_only = false;                 // internalTrafficPolicy: Local
  bool sticky = false;                     // sessionAffinity: ClientIP
  std::vector<ServiceRecordPort> ports;    // TCP only: that is what a sidecar sees

  bool operator==(const ServiceRecord&) const = default;
};

// Resolves one Service as kube-proxy would: from its EndpointSlices where `view` has any of it (ready endpoints, and where there is
// none of those, those that are still serving while they terminate), else from the pods that its selector matches (manifests have no
// slices). Nothing for an ExternalName Service. The order of the view's objects does not matter.
std::optional<ServiceRecord> resolve_service(const Service& service, const ClusterView& view);
// The same where the caller knows which EndpointSlices are the Service's: the view's are not searched. Of the view only the pods of the
// Service's namespace are read, and only when there is no slice.
std::optional<ServiceRecord> resolve_service(const Service& service, const std::vector<const EndpointSlice*>& slices,
                                             const ClusterView& view);
// Every Service of the view, by name.
std::vector<ServiceRecord> resolve_services(const ClusterView& view);

}  // namespace postern
