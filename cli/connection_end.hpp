// One end of a connection that a person asks about: a pod by name, or an address.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "authz/cluster.hpp"
#include "authz/snapshot.hpp"
#include "authz/topology.hpp"
#include "base/result.hpp"

namespace postern::cli {

struct ConnectionEnd {
  std::string asked;                      // as it was asked for
  const Workload* pod = nullptr;          // null: an address that is no pod's
  std::optional<IpAddress> address;       // as it was asked for; none for a pod asked for by name
  std::optional<SpiffeId> outsider = {};  // an authenticated SPIFFE ID that is no pod's; `address` is 0.0.0.0 where none was given

  bool operator==(const ConnectionEnd&) const = default;
};

// "namespace/pod", or an IP address; an address that a pod has is that pod. Or, of one who connects, the SPIFFE ID that it proved, which is
// taken for no pod's, with its address where that matters: "spiffe://partner.example/billing@203.0.113.7".
Result<ConnectionEnd> find_end(std::string_view asked, const ClusterView& view, const Topology& topology);

// The addresses that the two ends use. Of a pod asked for by name, the one of the other end's family; between two such pods,
// the first of the destination.
std::pair<IpAddress, IpAddress> addresses_of(const ConnectionEnd& from, const ConnectionEnd& to);

Result<Port> parse_port(std::string_view text);
Result<Protocol> parse_protocol(std::string_view text);

}  // namespace postern::cli
