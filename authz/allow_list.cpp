#include "authz/allow_list.hpp"

#include <algorithm>
#include <functional>

#include "authz/cluster.hpp"

namespace postern {

bool PeerSet::contains(std::uint32_t workload) const { return std::binary_search(members.begin(), members.end(), workload); }

std::string text_of(const PeerSet& set) {
  const std::string pods = set.pods.empty() ? "all pods" : "pods " + text_of(set.pods);
  if (set.namespaces.empty()) return pods + " in all namespaces";
  const auto& required = set.namespaces.match_expressions;
  const bool by_name = set.namespaces.match_labels.empty() && required.size() == 1 && required[0].key == namespace_name_label &&
                       required[0].op == SelectorOperator::in && required[0].values.size() == 1;
  return pods + (by_name ? " in namespace " + required[0].values[0] : " in namespaces " + text_of(set.namespaces));
}

bool AllowDirection::isolated(Plane plane) const {
  if (default_deny && (plane == Plane::pending || *default_deny == EnforcementMode::enforce)) return true;
  return std::any_of(isolating.begin(), isolating.end(), [plane](const IsolatingPolicy& policy) { return counts_in(plane, policy); });
}

bool AllowList::allows_trust_domain(std::string_view domain) const {
  return std::binary_search(trust_domains.begin(), trust_domains.end(), domain, std::less<>());
}

bool AllowList::operator==(const AllowList& other) const {
  const auto same = [](const auto& a, const auto& b) { return *a == *b; };
  return ingress == other.ingress && egress == other.egress && trust_domains == other.trust_domains &&
         std::equal(peer_sets.begin(), peer_sets.end(), other.peer_sets.begin(), other.peer_sets.end(), same);
}

std::string text_of(const AllowList& list, const AllowedPeer& peer) {
  if (const auto* set = std::get_if<PeerSetRef>(&peer.peer)) return text_of(*list.peer_sets[set->index]);
  if (const auto* listed = std::get_if<SpiffeIdPeer>(&peer.peer)) return listed->id;
  const auto* block = std::get_if<IpBlock>(&peer.peer);
  return block != nullptr ? text_of(*block) : "anybody";
}

}  // namespace postern
