// The pod's default gateways. On a node whose pods are behind a bridge, the gateway is the node itself, and the only address of it that the
// pod ever sees: the kubelet's probes come from there, and neither status.hostIPs nor the Node says so.
#pragma once

#include <string_view>
#include <vector>

#include "base/ip.hpp"

namespace postern {

// The gateways of the default routes in what /proc/net/route and /proc/net/ipv6_route say (proc(5)), sorted, each once. Lines that are not
// like that are passed over.
std::vector<IpAddress> gateways_in(std::string_view v4_routes, std::string_view v6_routes);

// Those of this network namespace; a family without routes has none.
std::vector<IpAddress> default_gateways();

}  // namespace postern
