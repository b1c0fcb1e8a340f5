#include "authz/snapshot.hpp"

#include <algorithm>
#include <iterator>

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

Destination PolicySnapshot::at_endpoint(const ServiceBackends& backends, IpFamily family, std::uint32_t pick, std::uint32_t attempt) const {
  const auto& endpoints = backends.of(family);
  const std::string_view own_node = topology_->node_of(*self_);
  const auto is_candidate = [&](const ServiceBackends::Endpoint& endpoint) { return !backends.local_only || endpoint.node == own_node; };
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
    destination.kind = destination.workload != nullptr ? Destination::Kind::workload : Destination::Kind::outside;
  }
  return destination;
}

Destination PolicySnapshot::resolve(const SocketAddress& original, std::uint32_t pick, std::uint32_t attempt) const {
  using Kind = Destination::Kind;
  const IpAddress& address = original.address;
  const bool is_node = topology_->is_node(address) || is_own_node(address);
  if (address.is_loopback() || (!self_->host_network && self_->has_address(address))) {
    return {.kind = Kind::self, .workload = self_, .address = original};
  }
  const ServiceTable& services = topology_->services();
  if (const ServiceBackends* backends = services.at(original)) return at_endpoint(*backends, address.family(), pick, attempt);
  if (is_node) {
    if (const ServiceBackends* backends = services.at_node_port(original.port)) {
      return at_endpoint(*backends, address.family(), pick, attempt);
    }
  }
  if (const Workload* workload = topology_->at(address)) return {.kind = Kind::workload, .workload = workload, .address = original};
  if (const std::string* service = services.owner_of(address)) {
    return {.kind = Kind::no_endpoint, .address = original, .service = *service, .candidates = 0};
  }
  const auto& ranges = settings_.cluster_cidrs;
  const bool in_cluster = std::any_of(ranges.begin(), ranges.end(), [&](const Cidr& range) { return range.contains(address); });
  return {.kind = in_cluster && !is_node ? Kind::unknown : Kind::outside, .address = original};
}

}  // namespace postern
