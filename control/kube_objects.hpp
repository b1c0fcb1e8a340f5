// ObjectReader: JSON of one kind's objects -> WatchedObject; only the fields we use are kept. An object that cannot be read never makes
// anything wider: its last good version stays, and a NetworkPolicy that has none isolates the pods it selects.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "base/document.hpp"
#include "base/result.hpp"
#include "control/watch_event.hpp"

namespace postern {

// The store's version of an object, where it has one.
using LastGood = std::function<std::optional<WatchedObject>(WatchedKind kind, const ObjectKey& key)>;

struct ObjectIdentity {
  ObjectKey key;
  std::string uid;
  std::uint64_t version = 0;  // resourceVersion
};

// JSON text -> tree, without the fields that nobody here reads (managedFields and other long ones). Errors name `source`.
Result<Node> parse_object(WatchedKind kind, std::string_view json, std::string_view source);

class ObjectReader {
 public:
  // `defaults`: the mesh's settings where the ConfigMap says nothing.
  ObjectReader(WatchedKind kind, MeshConfig defaults, LastGood last_good);

  struct Outcome {
    std::optional<WatchedObject> object;  // what is in force now; nothing: it is not known
    std::optional<Unreadable> unreadable;
  };
  // REQUIRES: `identity` is the object's.
  Outcome read(const Node& object, const ObjectIdentity& identity);
  void forget(const ObjectKey& key) { held_.erase(key.text()); }  // it was deleted

  // Between these, what is read takes the place of all that was there before; without the second it counts for nothing.
  void begin_list();
  void end_list();

 private:
  // What the store holds under a name: another object may get the same one.
  struct Held {
    std::size_t uid = 0;    // hash
    bool stand_in = false;  // made anew from each unreadable version
  };
  using HeldByKey = std::unordered_map<std::string, Held>;

  Result<WatchedObject> decode(const Node& object) const;
  HeldByKey& next() { return listing_ ? listed_ : held_; }

  WatchedKind kind_;
  MeshConfig defaults_;
  LastGood last_good_;
  HeldByKey held_;
  HeldByKey listed_;
  bool listing_ = false;
};

// metadata of any object.
Result<ObjectIdentity> identity_of(const Node& object);

}  // namespace postern
