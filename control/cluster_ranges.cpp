#include "control/cluster_ranges.hpp"

#include <algorithm>
#include <map>

namespace postern {
namespace {

// The largest block that a range is taken to fill: beyond it lies somebody else's.
unsigned group_prefix(const IpAddress& address) { return address.is_v4() ? 16 : 48; }

using Groups = std::map<IpAddress, Cidr>;

void cover(Groups& groups, const Cidr& block) {
  const unsigned most = group_prefix(block.address());
  if (block.prefix() <= most) {
    Cidr& wide = groups.try_emplace(block.address(), block).first->second;
    if (!wide.contains(block)) wide = block;
    return;
  }
  const auto [group, is_new] = groups.try_emplace(block.address().masked(most), block);
  if (is_new || group->second.contains(block)) return;
  unsigned prefix = std::min(group->second.prefix(), block.prefix());
  while (!Cidr(block.address(), prefix).contains(group->second)) --prefix;
  group->second = Cidr(block.address(), prefix);
}

}  // namespace

std::vector<Cidr> cluster_ranges(const ClusterView& view) {
  Groups groups;
  for (const auto& [name, node] : view.nodes) {
    for (const Cidr& block : node.pod_cidrs) cover(groups, block);
  }
  for (const auto& [key, service] : view.services) {
    for (const IpAddress& address : service.cluster_ips) cover(groups, Cidr(address, address.bits()));
  }
  std::vector<Cidr> ranges;
  for (const auto& [start, block] : groups) {
    // One that is wider than a group may hold others.
    if (ranges.empty() || !ranges.back().contains(block)) ranges.push_back(block);
  }
  return ranges;
}

}  // namespace postern
