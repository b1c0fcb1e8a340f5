#include "authz/service_table.hpp"

#include <algorithm>
#include <optional>

namespace postern {
namespace {

bool is_usable(const Pod& pod, const Service& service) {
  return !pod.ended() && !pod.terminating && (pod.ready || service.publish_not_ready);
}

bool selects(const Service& service, const Pod& pod) {
  return std::all_of(service.selector.begin(), service.selector.end(), [&](const auto& wanted) {
    const auto label = pod.labels.find(wanted.first);
    return label != pod.labels.end() && label->second == wanted.second;
  });
}

std::optional<Port> target_port(const ServicePort& port, const Workload& pod) {
  if (!port.target) return port.port;
  if (const Port* number = std::get_if<Port>(&*port.target)) return *number;
  return pod.named_port(std::get<std::string>(*port.target), port.protocol);
}

// kube-proxy would send the connection to a pod's first address of that family.
void add_endpoints(ServiceBackends& backends, const ServicePort& port, const Pod& pod) {
  const auto target = target_port(port, pod.workload);
  if (!target) return;
  for (const IpFamily family : {IpFamily::v4, IpFamily::v6}) {
    const auto address = std::find_if(pod.workload.addresses.begin(), pod.workload.addresses.end(),
                                      [family](const IpAddress& a) { return a.family() == family; });
    if (address == pod.workload.addresses.end()) continue;
    backends.endpoints[family == IpFamily::v4 ? 0 : 1].push_back({{*address, *target}, pod.node_name});
  }
}

std::vector<const Pod*> pods_behind(const Service& service, const ClusterView& view) {
  std::vector<const Pod*> pods;
  if (service.selector.empty()) return pods;
  for (auto it = view.pods.lower_bound({service.ns, ""}); it != view.pods.end() && it->first.ns == service.ns; ++it) {
    if (is_usable(it->second, service) && selects(service, it->second)) pods.push_back(&it->second);
  }
  return pods;
}

}  // namespace

ServiceTable::ServiceTable(const ClusterView& view) {
  for (const auto& [key, service] : view.services) {
    if (service.type == ServiceType::external_name) continue;
    for (const IpAddress& address : service.cluster_ips) cluster_ips_.emplace(address, key.text());
    const auto pods = pods_behind(service, view);
    for (const ServicePort& port : service.ports) {
      if (port.protocol != Protocol::tcp) continue;
      const auto index = static_cast<std::uint32_t>(backends_.size());
      ServiceBackends& backends = backends_.emplace_back();
      backends.service = key.text();
      backends.local_only = service.internal_traffic_local;
      backends.sticky = service.client_ip_affinity;
      for (const Pod* pod : pods) add_endpoints(backends, port, *pod);
      // The API server lets no two Services have the same ClusterIP or node port; of two with one external IP the first by
      // name counts.
      for (const auto* addresses : {&service.cluster_ips, &service.external_ips, &service.load_balancer_ips}) {
        for (const IpAddress& address : *addresses) by_address_.try_emplace(SocketAddress{address, port.port}, index);
      }
      if (port.node_port) by_node_port_.try_emplace(port.node_port->number, index);
    }
  }
}

const ServiceBackends* ServiceTable::at(const SocketAddress& address) const {
  const auto entry = by_address_.find(address);
  return entry == by_address_.end() ? nullptr : &backends_[entry->second];
}

const ServiceBackends* ServiceTable::at_node_port(Port port) const {
  const auto entry = by_node_port_.find(port.number);
  return entry == by_node_port_.end() ? nullptr : &backends_[entry->second];
}

const std::string* ServiceTable::owner_of(const IpAddress& cluster_ip) const {
  const auto entry = cluster_ips_.find(cluster_ip);
  return entry == cluster_ips_.end() ? nullptr : &entry->second;
}

}  // namespace postern
