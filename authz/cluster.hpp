// ClusterView: the objects that a compile reads. Ordered maps, so that the order in which objects arrived cannot matter.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "authz/labels.hpp"
#include "authz/network_policy.hpp"
#include "authz/workload.hpp"
#include "base/ip.hpp"

namespace postern {

// Names a namespaced object.
struct ObjectKey {
  std::string ns;
  std::string name;

  std::string text() const { return ns + "/" + name; }
  auto operator<=>(const ObjectKey&) const = default;
};
using WorkloadKey = ObjectKey;

// The label that the API server gives every namespace; its value is the namespace's name.
inline constexpr std::string_view namespace_name_label = "kubernetes.io/metadata.name";

struct Namespace {
  std::string name;
  Labels labels;
  std::optional<EnforcementMode> mode;                // absent: the mesh's
  std::optional<MtlsMode> mtls;                       // absent: the mesh's
  std::vector<std::string> allow_trust_domains = {};  // others than the mesh's; sorted, each once

  bool operator==(const Namespace&) const = default;
};

enum class PodPhase : std::uint8_t { pending, running, succeeded, failed, unknown };
std::string_view name_of(PodPhase phase);  // Pending, Running, ...

struct Pod {
  Workload workload;  // namespace, name, UID, addresses, ports ...; its `mtls` is filled in when compiled
  Labels labels;
  std::optional<MtlsMode> mtls;  // absent: the namespace's
  PodPhase phase = PodPhase::running;
  bool terminating = false;  // metadata.deletionTimestamp is set
  bool ready = true;         // condition Ready; a manifest without status counts as ready
  std::string node_name;
  std::vector<IpAddress> host_addresses;  // status.hostIPs

  // A pod that has ended keeps its address in status while the address is reused: it is nobody's peer.
  bool ended() const { return phase == PodPhase::succeeded || phase == PodPhase::failed; }
  bool operator==(const Pod&) const = default;
};

// spec.ports[] of a Service. `target`: absent means the same number as `port`.
struct ServicePort {
  std::string name;
  Protocol protocol = Protocol::tcp;
  Port port;
  std::optional<std::variant<Port, std::string>> target;
  std::optional<Port> node_port;

  bool operator==(const ServicePort&) const = default;
};

enum class ServiceType : std::uint8_t { cluster_ip, node_port, load_balancer, external_name };
std::string_view name_of(ServiceType type);  // ClusterIP, NodePort, ...

struct Service {
  std::string ns;
  std::string name;
  ServiceType type = ServiceType::cluster_ip;
  Labels selector;                     // empty: no pod is selected
  std::vector<IpAddress> cluster_ips;  // empty for a headless Service
  std::vector<IpAddress> external_ips;
  std::vector<IpAddress> load_balancer_ips;  // status.loadBalancer.ingress[].ip
  std::vector<ServicePort> ports;
  bool client_ip_affinity = false;  // sessionAffinity: ClientIP
  std::chrono::seconds affinity_timeout{10800};
  bool internal_traffic_local = false;  // internalTrafficPolicy: Local
  bool publish_not_ready = false;       // publishNotReadyAddresses

  bool operator==(const Service&) const = default;
};

// One endpoint of an EndpointSlice (discovery.k8s.io/v1).
struct SliceEndpoint {
  std::vector<IpAddress> addresses;
  bool ready = true;    // conditions; absent means true
  bool serving = true;  // also while it terminates
  bool terminating = false;
  std::string node_name;
  std::optional<ObjectKey> pod;  // targetRef, where it is a Pod

  bool operator==(const SliceEndpoint&) const = default;
};

// ports[] of an EndpointSlice: `name` is the Service port's.
struct SlicePort {
  std::string name;
  Protocol protocol = Protocol::tcp;
  Port port;

  bool operator==(const SlicePort&) const = default;
};

struct EndpointSlice {
  std::string ns;
  std::string name;
  std::string service;  // label kubernetes.io/service-name; empty: of no Service
  std::vector<SlicePort> ports;
  std::vector<SliceEndpoint> endpoints;

  bool operator==(const EndpointSlice&) const = default;
};

struct ClusterNode {
  std::string name;
  std::vector<IpAddress> addresses;  // status.addresses of type InternalIP and ExternalIP
  std::vector<Cidr> pod_cidrs;       // spec.podCIDRs

  bool operator==(const ClusterNode&) const = default;
};

struct ClusterView {
  std::map<std::string, Namespace> namespaces;
  std::map<ObjectKey, Pod> pods;
  std::map<ObjectKey, NetworkPolicy> policies;
  std::map<ObjectKey, Service> services;
  std::map<ObjectKey, EndpointSlice> endpoint_slices;
  std::map<std::string, ClusterNode> nodes;

  bool operator==(const ClusterView&) const = default;
};

}  // namespace postern
