#include "authz/service_record.hpp"

#include <algorithm>
#include <map>
#include <string_view>
#include <tuple>
#include <utility>

namespace postern {
namespace {

// An endpoint as the EndpointSlice API describes it, wherever it comes from.
struct Candidate {
  ServiceEndpoint endpoint;
  bool ready = false;
  bool serving = false;
  bool terminating = false;
};

bool selects(const Service& service, const Pod& pod) {
  return std::all_of(service.selector.begin(), service.selector.end(), [&](const auto& wanted) {
    const auto label = pod.labels.find(wanted.first);
    return label != pod.labels.end() && label->second == wanted.second;
  });
}

std::vector<const Pod*> pods_behind(const Service& service, const ClusterView& view) {
  std::vector<const Pod*> pods;
  if (service.selector.empty()) return pods;
  for (auto it = view.pods.lower_bound({service.ns, ""}); it != view.pods.end() && it->first.ns == service.ns; ++it) {
    if (!it->second.ended() && selects(service, it->second)) pods.push_back(&it->second);
  }
  return pods;
}

std::optional<Port> target_port(const ServicePort& port, const Workload& pod) {
  if (!port.target) return port.port;
  if (const Port* number = std::get_if<Port>(&*port.target)) return *number;
  return pod.named_port(std::get<std::string>(*port.target), port.protocol);
}

// What the EndpointSlice controller would write for a pod: its first address of each family, and its conditions.
void add(std::vector<Candidate>& out, const Pod& pod, const ServicePort& port, bool publish_not_ready) {
  const auto target = target_port(port, pod.workload);
  if (!target) return;
  for (const IpFamily family : {IpFamily::v4, IpFamily::v6}) {
    const auto& all = pod.workload.addresses;
    const auto address = std::find_if(all.begin(), all.end(), [family](const IpAddress& a) { return a.family() == family; });
    if (address == all.end()) continue;
    out.push_back({.endpoint = {{*address, *target}, pod.node_name, ObjectKey{pod.workload.ns, pod.workload.name}},
                   .ready = publish_not_ready || (pod.ready && !pod.terminating),
                   .serving = pod.ready,
                   .terminating = pod.terminating});
  }
}

// The endpoints of a slice for the Service port of one name. kube-proxy takes the first address of each.
void add(std::vector<Candidate>& out, const EndpointSlice& slice, const ServicePort& port) {
  for (const SlicePort& target : slice.ports) {
    if (target.name != port.name || target.protocol != port.protocol) continue;
    for (const SliceEndpoint& one : slice.endpoints) {
      if (one.addresses.empty()) continue;
      out.push_back({.endpoint = {{one.addresses.front(), target.port}, one.node_name, one.pod},
                     .ready = one.ready,
                     .serving = one.serving,
                     .terminating = one.terminating});
    }
  }
}

// One address once. Two slices may both have it while one is being replaced: then the better condition counts, and the smaller text, so
// that their order does not matter.
void unify(std::vector<Candidate>& all) {
  const auto rank = [](const Candidate& c) {
    return std::tuple(c.endpoint.address, !c.ready, !c.serving, c.terminating, std::string_view(c.endpoint.node), c.endpoint.pod);
  };
  std::sort(all.begin(), all.end(), [&](const Candidate& a, const Candidate& b) { return rank(a) < rank(b); });
  const auto same = [](const Candidate& a, const Candidate& b) { return a.endpoint.address == b.endpoint.address; };
  all.erase(std::unique(all.begin(), all.end(), same), all.end());
}

// kube-proxy (pkg/proxy/topology.go, CategorizeEndpoints): ready endpoints; where there is none, those that still serve while they
// terminate. With internalTrafficPolicy Local that is asked per node. Each family is a proxy of its own there.
std::vector<ServiceEndpoint> usable(const std::vector<Candidate>& all, IpFamily family, bool per_node) {
  const auto in_family = [family](const Candidate& c) { return c.endpoint.address.address.family() == family; };
  std::vector<std::string_view> with_ready;
  bool any_ready = false;
  for (const Candidate& one : all) {
    if (!in_family(one) || !one.ready) continue;
    any_ready = true;
    if (per_node) with_ready.push_back(one.endpoint.node);
  }
  std::sort(with_ready.begin(), with_ready.end());
  const auto has_ready = [&](const Candidate& c) {
    return per_node ? std::binary_search(with_ready.begin(), with_ready.end(), std::string_view(c.endpoint.node)) : any_ready;
  };
  std::vector<ServiceEndpoint> out;
  for (const Candidate& one : all) {
    if (in_family(one) && (one.ready || (one.serving && one.terminating && !has_ready(one)))) out.push_back(one.endpoint);
  }
  return out;
}

void append(std::vector<IpAddress>& out, const std::vector<IpAddress>& more) { out.insert(out.end(), more.begin(), more.end()); }

}  // namespace

std::optional<ServiceRecord> resolve_service(const Service& service, const std::vector<const EndpointSlice*>& slices,
                                             const ClusterView& view) {
  if (service.type == ServiceType::external_name) return std::nullopt;
  ServiceRecord record{.key = {service.ns, service.name},
                       .cluster_ips = service.cluster_ips,
                       .other_addresses = service.external_ips,
                       .local_only = service.internal_traffic_local,
                       .sticky = service.client_ip_affinity,
                       .ports = {}};
  append(record.other_addresses, service.load_balancer_ips);
  const auto pods = slices.empty() ? pods_behind(service, view) : std::vector<const Pod*>{};
  for (const ServicePort& port : service.ports) {
    if (port.protocol != Protocol::tcp) continue;
    std::vector<Candidate> candidates;
    for (const EndpointSlice* slice : slices) add(candidates, *slice, port);
    for (const Pod* pod : pods) add(candidates, *pod, port, service.publish_not_ready);
    unify(candidates);
    ServiceRecordPort& resolved = record.ports.emplace_back();
    resolved.port = port.port;
    resolved.node_port = port.node_port;
    resolved.endpoints = {usable(candidates, IpFamily::v4, record.local_only), usable(candidates, IpFamily::v6, record.local_only)};
  }
  return record;
}

std::optional<ServiceRecord> resolve_service(const Service& service, const ClusterView& view) {
  std::vector<const EndpointSlice*> slices;
  const auto& all = view.endpoint_slices;
  for (auto it = all.lower_bound({service.ns, ""}); it != all.end() && it->first.ns == service.ns; ++it) {
    if (it->second.service == service.name) slices.push_back(&it->second);
  }
  return resolve_service(service, slices, view);
}

std::vector<ServiceRecord> resolve_services(const ClusterView& view) {
  std::map<ObjectKey, std::vector<const EndpointSlice*>> slices;
  for (const auto& [key, slice] : view.endpoint_slices) slices[{slice.ns, slice.service}].push_back(&slice);
  std::vector<ServiceRecord> out;
  for (const auto& [key, service] : view.services) {
    const auto found = slices.find(key);
    auto record = resolve_service(service, found == slices.end() ? std::vector<const EndpointSlice*>{} : found->second, view);
    if (record) out.push_back(std::move(*record));
  }
  return out;
}

}  // namespace postern
