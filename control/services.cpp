#include "control/services.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "control/resource_hash.hpp"

namespace postern {

using graph::PodNode;
using graph::ServiceNode;

namespace {

// A headless Service without any address is only a name: its pods' own addresses are dialled.
bool can_be_dialled(const ServiceRecord& record) { return !record.cluster_ips.empty() || !record.other_addresses.empty(); }

template <class Visit>
void for_each_address(const ServiceRecord& record, const Visit& visit) {
  for (const auto* addresses : {&record.cluster_ips, &record.other_addresses}) {
    for (const IpAddress& address : *addresses) visit(address);
  }
}

std::set<WorkloadKey> pods_behind(const ServiceRecord& record) {
  std::set<WorkloadKey> keys;
  for (const ServiceRecordPort& port : record.ports) {
    for (const auto& endpoints : port.endpoints) {
      for (const ServiceEndpoint& endpoint : endpoints) {
        if (endpoint.pod) keys.insert(*endpoint.pod);
      }
    }
  }
  return keys;
}

}  // namespace

void Services::renew(const ObjectKey& key, const std::vector<graph::Scope*>& node_lookers) {
  const auto service = store_.view().services.find(key);
  std::optional<ServiceRecord> record;
  bool selects = false;
  if (service != store_.view().services.end()) {
    const auto slices = store_.slices_of(key);
    selects = slices.empty() && !service->second.selector.empty();
    record = resolve_service(service->second, slices, store_.view());
    if (record && !can_be_dialled(*record)) record.reset();
  }
  if (selects) {
    by_selector_[key.ns].insert(key);
  } else if (const auto ns = by_selector_.find(key.ns); ns != by_selector_.end()) {
    ns->second.erase(key);
    if (ns->second.empty()) by_selector_.erase(ns);
  }

  ServiceNode* node = find(key);
  if (node == nullptr) {
    if (!record) return;
    node = &services_[key];
    node->key = key;
  }
  if (node->record == record) return;
  mark_service(*node, node_lookers);
  set_record(*node, std::move(record));
  set_pods(*node);
  mark_service(*node, node_lookers);
  release(*node);
}

void Services::set_record(ServiceNode& service, std::optional<ServiceRecord> record) {
  if (service.record) {
    for_each_address(*service.record, [&](const IpAddress& address) {
      const auto entry = at_.find(address);
      if (entry == at_.end()) return;
      std::erase(entry->second, &service);
      if (entry->second.empty()) at_.erase(entry);
    });
  }
  service.record = std::move(record);
  service.resource.outdated();
  service.has_node_port = false;
  if (service.record) {
    for_each_address(*service.record, [&](const IpAddress& address) { at_[address].push_back(&service); });
    const auto& ports = service.record->ports;
    service.has_node_port =
        std::any_of(ports.begin(), ports.end(), [](const ServiceRecordPort& port) { return port.node_port.has_value(); });
  }
  if (service.has_node_port) {
    node_ports_.insert(&service);
  } else {
    node_ports_.erase(&service);
  }
}

void Services::set_pods(ServiceNode& service) {
  std::vector<PodNode*> wanted;
  if (service.record) {
    for (const WorkloadKey& key : pods_behind(*service.record)) wanted.push_back(&node_of(pods_, key));
  }
  std::sort(wanted.begin(), wanted.end(), std::less<>());
  const std::vector<PodNode*> before = service.pods;
  std::vector<PodNode*> changed;
  std::set_difference(before.begin(), before.end(), wanted.begin(), wanted.end(), std::back_inserter(changed), std::less<>());
  for (PodNode* pod : changed) {
    remove_endpoint(service, *pod);
    graph::release(pods_, *pod);
  }
  changed.clear();
  std::set_difference(wanted.begin(), wanted.end(), before.begin(), before.end(), std::back_inserter(changed), std::less<>());
  for (PodNode* pod : changed) add_endpoint(service, *pod);
}

std::vector<ObjectKey> Services::by_selector(const std::string& ns) const {
  const auto found = by_selector_.find(ns);
  if (found == by_selector_.end()) return {};
  return {found->second.begin(), found->second.end()};
}

ServiceNode* Services::find(const ObjectKey& key) {
  const auto found = services_.find(key);
  return found == services_.end() ? nullptr : &found->second;
}

std::vector<ServiceNode*> Services::at(const IpAddress& address) const {
  const auto found = at_.find(address);
  return found == at_.end() ? std::vector<ServiceNode*>{} : found->second;
}

const ResourcePtr& Services::resource(ServiceNode& service) const {
  if (service.resource.current() != nullptr) return service.resource.current();
  return service.resource.keep(make_resource(service_resource_name(service.key), encode(*service.record)));
}

void Services::release(ServiceNode& service) {
  if (!service.record && service.lookers.empty()) services_.erase(ObjectKey(service.key));
}

}  // namespace postern
