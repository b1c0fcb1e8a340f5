#include "authz/snapshot_parts.hpp"

#include <algorithm>
#include <utility>

#include "authz/topology.hpp"

namespace postern {
namespace {

Error missing(std::string what) { return {.message = std::move(what), .where = ""}; }

void add_members(const Topology& topology, const PeerSetRecord& record, PeerSet& set) {
  const auto& workloads = topology.workloads();
  if (record.whole_namespaces) {
    const auto& names = record.namespace_names;
    const bool everywhere = record.namespaces.empty();
    for (std::uint32_t i = 0; i < workloads.size(); ++i) {
      if (workloads[i].host_network) continue;
      if (everywhere || std::binary_search(names.begin(), names.end(), workloads[i].ns)) set.members.push_back(i);
    }
    return;
  }
  for (const WorkloadKey& member : record.members) {
    const Workload* workload = topology.find(member.ns, member.name);
    if (workload != nullptr && !workload->host_network) set.members.push_back(*topology.index_of(*workload));
  }
  std::sort(set.members.begin(), set.members.end());
}

bool refers_beyond(const AllowDirection& direction, std::size_t peer_sets) {
  const auto is_beyond = [&](const AllowedPeer& peer) {
    const auto* set = std::get_if<PeerSetRef>(&peer.peer);
    return set != nullptr && set->index >= peer_sets;
  };
  return std::any_of(direction.rules.begin(), direction.rules.end(),
                     [&](const AllowRule& rule) { return std::any_of(rule.peers.begin(), rule.peers.end(), is_beyond); });
}

}  // namespace

Result<std::shared_ptr<const PolicySnapshot>> assemble(const SnapshotParts& parts, std::uint64_t generation,
                                                       std::chrono::system_clock::time_point made_at) {
  if (!parts.settings) return missing("the mesh's settings have not arrived");
  if (!parts.allow_list) return missing("the allow list of " + parts.self.text() + " has not arrived");
  const auto self = parts.pods.find(parts.self);
  if (self == parts.pods.end()) return missing("there is no record of this sidecar's own pod " + parts.self.text());
  const AllowListRecord& rules = *parts.allow_list;
  if (refers_beyond(rules.list.ingress, rules.peer_sets.size()) || refers_beyond(rules.list.egress, rules.peer_sets.size())) {
    return missing("a rule of the allow list refers to a peer set that the list does not name");
  }

  std::vector<PodRecord> pods;
  pods.reserve(parts.pods.size());
  for (const auto& [key, pod] : parts.pods) {
    pods.push_back(pod);
    if (key == parts.self) pods.back().workload.probe_ports = parts.probe_ports;
  }
  std::vector<ServiceRecord> services;
  services.reserve(parts.services.size());
  for (const auto& [key, service] : parts.services) services.push_back(service);
  const auto topology = std::make_shared<const Topology>(std::move(pods), std::move(services), parts.nodes);

  AllowList list = rules.list;
  for (const std::string& name : rules.peer_sets) {
    const auto record = parts.peer_sets.find(name);
    if (record == parts.peer_sets.end()) return missing("the allow list names the peer set " + name + ", which is not there");
    auto set = std::make_shared<PeerSet>();
    set->namespaces = record->second.namespaces;
    set->pods = record->second.pods;
    add_members(*topology, record->second, *set);
    list.peer_sets.push_back(std::move(set));
  }
  const Workload* own = topology->find(parts.self.ns, parts.self.name);
  return std::shared_ptr<const PolicySnapshot>(new PolicySnapshot(generation, made_at, *parts.settings, topology, *own, std::move(list)));
}

}  // namespace postern
