// In force: what each sidecar has acknowledged, against what each policy compiles to now (architecture section 5).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "control/cluster_store.hpp"
#include "control/publisher.hpp"

namespace postern {

// What is known of one pod's sidecar.
struct StreamState {
  bool connected = false;
  const HeldVersions* acknowledged = nullptr;   // what all its workers enforce
  std::chrono::system_clock::time_point since;  // of the last acknowledgement that changed its rules or peer sets
  std::string refusal;                          // why it refused the newest update; empty: it did not
};
using StreamOf = std::function<StreamState(const WorkloadKey&)>;

enum class PodEnforcement : std::uint8_t {
  enforced,
  lagging,       // connected, and has not acknowledged the policy as it is now
  disconnected,  // has no stream to this replica
  unmeshed,      // has no sidecar
  audit,         // the policy is in audit there: it decides nothing
};
std::string_view name_of(PodEnforcement state);  // enforced, lagging, ...

struct PodStatus {
  WorkloadKey pod;
  PodEnforcement state = PodEnforcement::disconnected;
  std::optional<std::chrono::system_clock::time_point> since;  // only where enforced
  std::string reason;                                          // only where lagging

  bool operator==(const PodStatus&) const = default;
};

struct PolicyStatus {
  ObjectKey key;
  std::int64_t generation = 0;
  std::vector<PodStatus> pods;            // that it selects, by name
  std::vector<std::string> not_enforced;  // what of it a proxy of TCP cannot enforce: "ingress rule 1: UDP port 53"

  bool operator==(const PolicyStatus&) const = default;
};

// Of every policy, or of those of a namespace or a name where these are not empty. REQUIRES: the store has no changes to flush. An edit
// that compiles to the same resources inherits their acknowledgement.
std::vector<PolicyStatus> policy_status(const ClusterStore& store, Publisher& publisher, const StreamOf& stream_of, std::string_view ns,
                                        std::string_view name);
// The running pods with a sidecar whose stream is not at this replica, or has not acknowledged anything yet. Whoever is in every replica's
// answer may still enforce what was deleted long ago.
std::vector<WorkloadKey> unconnected_pods(const ClusterStore& store, const StreamOf& stream_of);
// {"policies":[{"namespace":...,"name":...,"generation":...,"pods":[{"namespace","name","state","since","reason"}],"notEnforced":[...]}]}
std::string encode(const std::vector<PolicyStatus>& policies);

// Measures from the moment an edit of a policy was first seen to the one when every connected sidecar that it selected enforced it.
class InForceClock {
 public:
  using Time = std::chrono::steady_clock::time_point;
  using Seconds = std::chrono::duration<double>;

  // An edit that has come into force.
  struct Settled {
    ObjectKey policy;
    std::int64_t generation = 0;
    std::size_t enforcing = 0;  // pods whose sidecars enforce it
    bool audit = false;         // it is in audit: they hold it, and it decides nothing
    Seconds took{};
  };

  // After each flush. The first changes are the cluster as it was found, and no edits.
  void changed(const Changes& changes, const ClusterStore& store, const Publisher& publisher, Time now);
  // The edits that have come into force since the last call. Called after acknowledgements, when streams end, and before each flush: that
  // replaces what an edit compiled to, and one that is enforced already must not be lost to the next.
  std::vector<Settled> settle(Publisher& publisher, const StreamOf& stream_of, Time now);
  // The policies that were edited longer than `patience` ago and are not in force yet; each edit is named once.
  std::vector<ObjectKey> overdue(Time now, std::chrono::seconds patience);
  std::size_t pending() const { return pending_.size(); }

 private:
  struct Edit {
    Time seen;
    std::int64_t generation = 0;
    bool audit = false;
    std::vector<WorkloadKey> waiting;  // found enforcing: taken off the end
    std::size_t enforcing = 0;
    bool named_overdue = false;
  };

  bool started_ = false;
  std::map<ObjectKey, Edit> pending_;
};

}  // namespace postern
