#include "control/publisher.hpp"

#include <utility>

#include "control/scope.hpp"
#include "control/scope_index.hpp"

namespace postern {

Publisher::Publisher(ClusterStore& store) : index_(std::make_unique<ScopeIndex>(store)) {}
Publisher::~Publisher() = default;

Changes Publisher::flush() {
  ++flushes_;
  return index_->flush();
}

std::unique_ptr<Subscription> Publisher::subscribe(const WorkloadKey& self, const std::string& uid, std::function<void(bool)> on_change) {
  const auto pod = index_->pods.find(self);
  if (!index_->is_built() || pod == index_->pods.end() || pod->second.pod == nullptr || pod->second.pod->workload.uid != uid)
    return nullptr;
  return std::make_unique<graph::Scope>(*index_, pod->second, std::move(on_change));
}

std::map<std::string, std::string> Publisher::resources_of(const WorkloadKey& pod) {
  std::map<std::string, std::string> hashes;
  const auto node = index_->pods.find(pod);
  if (node == index_->pods.end() || node->second.scopes.empty()) return hashes;
  graph::AllowListNode& list = *node->second.scopes.front()->list();
  const auto add = [&](const ResourcePtr& resource) { hashes.emplace(resource->name, resource->hash); };
  add(index_->lists.resource(list));
  for (graph::PeerSetNode* set : list.sets) add(index_->sets.resource(*set));
  return hashes;
}

std::vector<WorkloadKey> Publisher::selected_by(const ObjectKey& policy) const {
  std::vector<WorkloadKey> selected;
  const auto found = index_->store.view().policies.find(policy);
  if (found == index_->store.view().policies.end()) return selected;
  for (auto it = index_->pods.lower_bound({policy.ns, ""}); it != index_->pods.end() && it->first.ns == policy.ns; ++it) {
    const graph::PodNode& node = it->second;
    if (may_be_member(node) && matches(found->second.pod_selector, node.pod->labels)) selected.push_back(node.key);
  }
  return selected;
}

const std::vector<Cidr>& Publisher::ranges() const { return index_->ranges(); }

Publisher::Stats Publisher::stats() const {
  return {.subscriptions = index_->scope_count(),
          .peer_sets = index_->sets.size(),
          .allow_lists = index_->lists.size(),
          .flushes = flushes_,
          .recompiled = index_->lists.made() + index_->sets.made()};
}

}  // namespace postern
