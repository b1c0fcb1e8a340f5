// Publisher: turns the cluster's state into resources and tells each subscription which of its own changed. Incremental: an event costs
// what it can affect. One thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "authz/stream_messages.hpp"
#include "control/cluster_store.hpp"
#include "control/held_versions.hpp"

namespace postern {

class ScopeIndex;

// The scope of one workload: its own allow list, the peer sets it names, their members' records, the Services that lead to them, and
// what it looked up. A subscription's owner asks for what changed when told to; what it never asks for costs nothing.
class Subscription {
 public:
  virtual ~Subscription() = default;  // unsubscribes

  // What there is now and `held` does not have or has otherwise, and the names it should no longer have.
  struct Difference {
    std::vector<ResourcePtr> resources;
    std::vector<ResourceDelta> deltas;  // for those of `resources` that are a few edits away from what is held
    std::vector<std::string> removed;
    bool empty() const { return resources.empty() && removed.empty(); }
  };
  // What is held outside the scope with the very hash that it has now counts as looked up: the stream moved here from another replica.
  virtual Difference difference(const HeldVersions& held) = 0;
  // Narrower: only the names that changed since the last call of either.
  virtual Difference changes(const HeldVersions& held) = 0;
  // Brings what is at the address into the scope: a pod; a Service with its endpoints' pods; a node, with the Services that have a
  // NodePort. False: nothing known. What it brought stays current until it is forgotten, or is gone and was said to be removed.
  virtual bool look_up(const IpAddress& address) = 0;
  virtual void forget(const std::string& name) = 0;  // a resource that look_up brought; "nodes" with the Services it brought
};

class Publisher {
 public:
  // REQUIRES: `store` outlives this.
  explicit Publisher(ClusterStore& store);
  ~Publisher();
  Publisher(const Publisher&) = delete;
  Publisher& operator=(const Publisher&) = delete;

  // Takes the store's changes, recompiles what they affect, and calls on_change of the subscriptions whose resources changed (at most once
  // each), which may subscribe and unsubscribe. Returns the changes it took; before the store is synced it takes none.
  // REQUIRES: called after events, when it has been quiet for a few milliseconds (or at the bound); not from on_change.
  Changes flush();

  // Nothing when there is no such pod with that UID, it has ended, or nothing is published yet. `on_change` is called from flush();
  // when the pod goes away it is called with gone = true, once. REQUIRES: the publisher outlives the subscription.
  std::unique_ptr<Subscription> subscribe(const WorkloadKey& self, const std::string& uid, std::function<void(bool gone)> on_change);

  // The names of the resources that a policy compiles to for a pod it selects: its allow list and the peer sets of its rules, with their
  // hashes as they are now. A sidecar that acknowledged these enforces the policy as it is now. Empty where nobody subscribes to the pod.
  std::map<std::string, std::string> resources_of(const WorkloadKey& pod);
  // The pods that a policy selects now, by key.
  std::vector<WorkloadKey> selected_by(const ObjectKey& policy) const;

  // The ranges of pods and Services that settings carry: as configured, else as Nodes and Services tell (control/cluster_ranges.hpp).
  const std::vector<Cidr>& ranges() const;

  struct Stats {
    std::size_t subscriptions = 0;
    std::size_t peer_sets = 0;
    std::size_t allow_lists = 0;  // distinct ones: pods that the same policies select share one
    std::uint64_t flushes = 0;
    std::uint64_t recompiled = 0;  // allow lists and peer sets made anew so far
  };
  Stats stats() const;

 private:
  std::unique_ptr<ScopeIndex> index_;
  std::uint64_t flushes_ = 0;
};

}  // namespace postern
