#include "authz/cluster.hpp"

namespace postern {

std::string_view name_of(PodPhase phase) {
  switch (phase) {
    case PodPhase::pending: return "Pending";
    case PodPhase::running: return "Running";
    case PodPhase::succeeded: return "Succeeded";
    case PodPhase::failed: return "Failed";
    case PodPhase::unknown: return "Unknown";
  }
  return "";
}

std::string_view name_of(ServiceType type) {
  switch (type) {
    case ServiceType::cluster_ip: return "ClusterIP";
    case ServiceType::node_port: return "NodePort";
    case ServiceType::load_balancer: return "LoadBalancer";
    case ServiceType::external_name: return "ExternalName";
  }
  return "";
}

}  // namespace postern
