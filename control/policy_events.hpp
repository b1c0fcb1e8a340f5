// PolicyEvents: what people see of an object with kubectl: Events saying that a policy is in force, or not yet, or that an object
// could not be read.
//
// Every replica writes for the sidecars connected to it, under its own name as the reporting instance, so nothing has to be single.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "control/event_recorder.hpp"
#include "control/in_force.hpp"
#include "control/watch_event.hpp"

namespace postern {

class PolicyEvents {
 public:
  // REQUIRES: `recorder` outlives this.
  explicit PolicyEvents(EventRecorder& recorder) : recorder_(recorder) {}

  // Remembers the UIDs of policies: kubectl describe finds Events by them.
  void saw(const WatchEvent& event);
  // The sidecars connected here of `pods` pods that the policy selects enforce it, `seconds` after its change was seen.
  void in_force(const ObjectKey& policy, std::int64_t generation, std::size_t pods, double seconds);
  // It is not, `seconds` after: some of these pods' sidecars, connected here, lag. Nothing is said where none does.
  void not_in_force(const PolicyStatus& policy, double seconds);
  void unreadable(const Unreadable& object);

 private:
  EventRecorder& recorder_;
  std::map<ObjectKey, std::string> uids_;
};

}  // namespace postern
