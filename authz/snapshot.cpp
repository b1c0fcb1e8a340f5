#include "authz/snapshot.hpp"

#include <algorithm>
#include <iterator>
#include <utility>

#include "authz/decision_index.hpp"
#include "authz/topology.hpp"

namespace postern {

std::string_view name_of(IdentityError error) {
  switch (error) {
    case IdentityError::none: return "none";
    case IdentityError::wrong_trust_domain: return "wrong_trust_domain";
    case IdentityError::not_a_workload: return "not_a_workload";
    case IdentityError::unknown_workload: return "unknown_workload";
    case IdentityError::uid_mismatch: return "uid_mismatch";
    case IdentityError::account_mismatch: return "account_mismatch";
    case IdentityError::address_mismatch: return "address_mismatch";
  }
  return "";
}

bool is_outsider(IdentityError error) { return error == IdentityError::wrong_trust_domain || error == IdentityError::not_a_workload; }

PolicySnapshot::PolicySnapshot(std::uint64_t generation, std::chrono::system_clock::time_point made_at, MeshSettings settings,
                               std::shared_ptr<const Topology> topology, const Workload& self, AllowList list)
    : generation_(generation),
      made_at_(made_at),
      settings_(std::move(settings)),
      topology_(std::move(topology)),
      self_(&self),
      allow_list_(std::move(list)),
      ingress_(std::make_shared<const DecisionIndex>(allow_list_, PolicyDirection::ingress, self, *topology_)),
      egress_(std::make_shared<const DecisionIndex>(allow_list_, PolicyDirection::egress, self, *topology_)) {
  auto& node = settings_.node_addresses;
  std::sort(node.begin(), node.end());
  node.erase(std::unique(node.begin(), node.end()), node.end());
}

const Workload* PolicySnapshot::workload_at(const IpAddress& address) const { return topology_->at(address); }

bool PolicySnapshot::is_own_node(const IpAddress& address) const {
  return std::binary_search(settings_.node_addresses.begin(), settings_.node_addresses.end(), address);
}

IdentityLookup PolicySnapshot::identify(const SpiffeId& id, const IpAddress& source) const {
  if (id.trust_domain() != settings_.trust_domain.text()) return {.error = IdentityError::wrong_trust_domain};
  const auto identity = id.pod();
  if (!identity) return {.error = IdentityError::not_a_workload};
  if (identity->pod.empty()) {
    // The ID names an account, that many pods share: only the address can say which of them this is.
    const Workload* workload = topology_->at(source);
    if (workload == nullptr || workload->ns != identity->ns || workload->service_account != identity->service_account) {
      return {.error = IdentityError::address_mismatch};
    }
    return {.workload = workload};
  }
  const Workload* workload = topology_->find(identity->ns, identity->pod);
  if (workload == nullptr) return {.error = IdentityError::unknown_workload};
  if (workload->uid != identity->uid) return {.error = IdentityError::uid_mismatch};
  if (workload->service_account != identity->service_account) return {.error = IdentityError::account_mismatch};
  return {.workload = workload};
}

Destination::Kind PolicySnapshot::kind_of_unnamed(const IpAddress& address) const {
  if (topology_->is_node(address) || is_own_node(address)) return Destination::Kind::outside;
  const auto& ranges = settings_.cluster_cidrs;
  const bool in_cluster = std::any_of(ranges.begin(), ranges.end(), [&](const Cidr& range) { return range.contains(address); });
  return in_cluster ? Destination::Kind::unknown : Destination::Kind::outside;
}

Destination PolicySnapshot::at_endpoint(const ServiceBackends& backends, Reach reach, IpFamily family, std::uint32_t pick,
                                        std::uint32_t attempt) const {
  const auto& endpoints = backends.of(family);
  const std::string_view own_node = topology_->node_of(*self_);
  const auto is_candidate = [&](const ServiceEndpoint& endpoint) { return reach == Reach::cluster || endpoint.node == own_node; };
  const auto candidates = static_cast<std::uint32_t>(std::count_if(endpoints.begin(), endpoints.end(), is_candidate));
  Destination destination{.kind = Destination::Kind::no_endpoint, .service = backends.service, .candidates = candidates};
  if (candidates == 0) return destination;

  const auto start = backends.sticky ? static_cast<std::uint32_t>(std::hash<std::string_view>{}(self_->name)) : pick;
  std::uint32_t skip = (start % candidates + attempt % candidates) % candidates;
  const auto chosen = std::find_if(endpoints.begin(), endpoints.end(), [&](const auto& e) { return is_candidate(e) && skip-- == 0; });
  destination.address = chosen->address;
  destination.workload = topology_->at(chosen->address.address);
  if (destination.workload == self_) {
    destination.kind = Destination::Kind::self;
  } else {
    destination.kind = destination.workload != nullptr ? Destination::Kind::workload : kind_of_unnamed(chosen->address.address);
  }
  return destination;
}

Destination PolicySnapshot::resolve(const SocketAddress& original, std::uint32_t pick, std::uint32_t attempt) const {
  using Kind = Destination::Kind;
  const IpAddress& address = original.address;
  if (address.is_loopback() || (!self_->host_network && self_->has_address(address))) {
    return {.kind = Kind::self, .workload = self_, .address = original};
  }
  const ServiceTable& services = topology_->services();
  if (const ServiceBackends* backends = services.at(original)) {
    // internalTrafficPolicy is of ClusterIPs only (Kubernetes API: ServiceSpec.internalTrafficPolicy).
    const Reach reach = backends->local_only && services.owner_of(address) != nullptr ? Reach::node : Reach::cluster;
    return at_endpoint(*backends, reach, address.family(), pick, attempt);
  }
  if (topology_->is_node(address) || is_own_node(address)) {
    if (const ServiceBackends* backends = services.at_node_port(original.port)) {
      return at_endpoint(*backends, Reach::cluster, address.family(), pick, attempt);
    }
  }
  if (const Workload* workload = topology_->at(address)) return {.kind = Kind::workload, .workload = workload, .address = original};
  if (const std::string* service = services.owner_of(address)) {
    return {.kind = Kind::no_endpoint, .address = original, .service = *service, .candidates = 0};
  }
  return {.kind = kind_of_unnamed(address), .address = original};
}

}  // namespace postern
