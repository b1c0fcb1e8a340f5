// ClusterStore: folds watch events into a ClusterView and says what each of them changed. It depends on the current state, never on the
// order of events: whatever the order, split or repetition, the same last state of every object gives an equal view.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/stream_messages.hpp"
#include "control/watch_event.hpp"

namespace postern {

// What events changed since the last take_changes(): keys, before and after are for the reader to look up and to remember.
struct Changes {
  std::set<ObjectKey> pods;
  std::set<std::string> namespaces;
  std::set<ObjectKey> policies;
  std::set<ObjectKey> services;  // by themselves or by their EndpointSlices
  std::set<std::string> nodes;
  bool settings = false;

  bool empty() const;
};

class ClusterStore {
 public:
  // `defaults`: what holds where the mesh has no ConfigMap.
  explicit ClusterStore(MeshConfig defaults = {});

  // An event that changes nothing that we use (another resourceVersion alone) leaves no trace but the version.
  void apply(WatchEvent event);
  Changes take_changes();

  // A pod that leaves the view stays where it is in memory until take_changes(): who keeps a pointer has until then to learn of it.
  const ClusterView& view() const { return view_; }
  const MeshConfig& mesh() const { return mesh_; }
  // The EndpointSlices of a Service, by name.
  std::vector<const EndpointSlice*> slices_of(const ObjectKey& service) const;
  // Whether every kind has been listed once: before that nothing may be published.
  bool synced() const;
  // The history that the view contains: of each kind its list, with whatever had been deleted before, and the events since; and the one
  // that it has seen: also bookmarks, which change nothing, so that what a sidecar takes from here is no older anywhere for lacking them.
  // `epoch`: the identity of the store: the UID of the namespace kube-system and the mesh's own epoch.
  Mark mark() const;
  bool has_seen(const Mark& mark) const { return unseen(mark).empty(); }  // another epoch: true, and the caller logs it
  std::vector<std::pair<WatchedKind, std::uint64_t>> unseen(
      const Mark& mark) const;  // the kinds that are not seen as far as there, and how far that is
  void set_store_uid(std::string uid);

 private:
  struct Kind {
    std::uint64_t mark = 0;  // the largest version of a list, an object or a deletion
    std::uint64_t seen = 0;  // also of bookmarks; not while relisting, where what comes is not yet everything up to its version
    bool listed = false;
    std::optional<std::set<ObjectKey>> relisting;  // applied since relist_began
  };

  void put(const ObjectKey& key, WatchedObject object);
  bool remove(WatchedKind kind, const ObjectKey& key);
  void remove_unlisted(const Kind& kind, WatchedKind name);
  void set_mesh(MeshConfig mesh);
  void put_slice(const ObjectKey& key, EndpointSlice slice);
  void unlink_slice(const ObjectKey& key, const EndpointSlice& slice);

  ClusterView view_;
  std::vector<std::map<ObjectKey, Pod>::node_type> removed_pods_;
  std::map<ObjectKey, std::set<ObjectKey>> slices_;  // by Service
  MeshConfig defaults_;
  MeshConfig mesh_;
  std::string store_uid_;
  std::array<Kind, watched_kinds.size()> kinds_;
  Changes changes_;
};

}  // namespace postern
