#include "authz/topology.hpp"

#include <tuple>
#include <utility>

namespace postern {

Topology::Topology(std::vector<PodRecord> pods, std::vector<ServiceRecord> services, const std::vector<IpAddress>& nodes)
    : nodes_(nodes.begin(), nodes.end()), services_(std::move(services)) {
  workloads_.reserve(pods.size());
  node_names_.reserve(pods.size());
  for (PodRecord& pod : pods) {
    workloads_.push_back(std::move(pod.workload));
    node_names_.push_back(std::move(pod.node_name));
  }
  for (std::uint32_t i = 0; i < workloads_.size(); ++i) {
    const Workload& workload = workloads_[i];
    by_name_.emplace(Key{workload.ns, workload.name}, i);
    if (workload.host_network) continue;
    const auto preference = [&](std::uint32_t index) { return std::make_tuple(pods[index].terminating, !workloads_[index].meshed); };
    for (const IpAddress& address : workload.addresses) {
      const auto [entry, is_new] = by_address_.try_emplace(address, i);
      if (!is_new && preference(i) < preference(entry->second)) entry->second = i;
    }
  }
}

const Workload* Topology::find(std::string_view ns, std::string_view name) const {
  const auto entry = by_name_.find(Key{ns, name});
  return entry == by_name_.end() ? nullptr : &workloads_[entry->second];
}

const Workload* Topology::at(const IpAddress& address) const {
  const auto entry = by_address_.find(address);
  return entry == by_address_.end() ? nullptr : &workloads_[entry->second];
}

std::optional<std::uint32_t> Topology::index_of(const Workload& workload) const {
  const std::less<const Workload*> before;
  const Workload* first = workloads_.data();
  if (!before(&workload, first) && before(&workload, first + workloads_.size())) {
    return static_cast<std::uint32_t>(&workload - first);
  }
  const Workload* today = find(workload.ns, workload.name);
  if (today == nullptr || today->uid != workload.uid) return std::nullopt;
  return static_cast<std::uint32_t>(today - first);
}

std::string_view Topology::node_of(const Workload& workload) const {
  const auto index = index_of(workload);
  return index ? std::string_view(node_names_[*index]) : std::string_view();
}

}  // namespace postern
