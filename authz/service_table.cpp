#include "authz/service_table.hpp"

#include <utility>

namespace postern {

ServiceTable::ServiceTable(std::vector<ServiceRecord> records) {
  for (ServiceRecord& record : records) {
    const std::string name = record.key.text();
    for (const IpAddress& address : record.cluster_ips) cluster_ips_.emplace(address, name);
    for (ServiceRecordPort& port : record.ports) {
      const auto index = static_cast<std::uint32_t>(backends_.size());
      backends_.push_back(
          {.service = name, .local_only = record.local_only, .sticky = record.sticky, .endpoints = std::move(port.endpoints)});
      // The API server lets no two Services have the same ClusterIP or node port; external IPs are anybody's to claim.
      for (const auto* addresses : {&record.cluster_ips, &record.other_addresses}) {
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
