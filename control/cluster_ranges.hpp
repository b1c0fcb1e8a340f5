// The ranges of pods and Services as far as the cluster's objects tell them, for where nobody configured mesh.clusterCidrs.
#pragma once

#include <vector>

#include "authz/cluster.hpp"

namespace postern {

// From the Nodes' spec.podCIDRs and the Services' cluster IPs: for each /16 (IPv4) or /48 (IPv6) in which there is any, the smallest block
// that covers them. So its size follows that of the ranges, not that of the cluster. By address; of the current state only.
std::vector<Cidr> cluster_ranges(const ClusterView& view);

}  // namespace postern
