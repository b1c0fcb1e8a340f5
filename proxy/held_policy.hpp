// HeldPolicy: what this sidecar holds of the control plane's state, resource by resource, and how far into history it reaches. No I/O.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_set>
#include <vector>

#include "authz/stream_messages.hpp"

namespace postern {

using AddressSet = std::unordered_set<IpAddress, IpAddressHash>;

class HeldPolicy {
 public:
  // `local` is the sidecar's own configuration: its trust domain must be the mesh's, its node addresses and denied identities count too,
  // and its cluster ranges count where the control plane names none.
  HeldPolicy(WorkloadKey self, MeshSettings local) : local_(std::move(local)) { parts_.self = std::move(self); }

  // Architecture section 5: a state that reaches less far than ours, in the same epoch, is never taken.
  bool is_older(const Mark& mark) const;
  // Whether this update starts another history than ours.
  bool is_new_epoch(const Mark& mark) const { return !mark_.epoch.empty() && mark.epoch != mark_.epoch; }

  // Applies the update whole, or not at all: an older one, a resource that cannot be read, edits to something else than is held or that
  // come to another hash than they should, or a state that would be half of one is an error, and what is held stays. Null: the update
  // changed nothing but the mark.
  Result<std::shared_ptr<const PolicySnapshot>> apply(const Update& update, std::uint64_t generation,
                                                      std::chrono::system_clock::time_point now);

  const Mark& mark() const { return mark_; }
  const SnapshotParts& parts() const { return parts_; }
  const std::map<std::string, std::string>& hashes() const { return hashes_; }  // by name: Hello's `have`
  // Everything held as one update, for the state file.
  Update whole() const;
  // The names of pods and Services that are held only because they were looked up, and that use none of these addresses.
  std::vector<std::string> looked_up_and_unused(const AddressSet& in_use) const;

 private:
  // What the edits make of the body that is held.
  Result<std::string> edited_held(const ResourceDelta& delta) const;

  MeshSettings local_;
  SnapshotParts parts_;
  std::map<std::string, std::string> hashes_;
  Mark mark_;
};

}  // namespace postern
