// PolicyStream: the protocol of one sidecar's stream (docs/stream.md) without its I/O: messages in, messages out. One thread.
//
// It waits for the sidecar's Hello, then until this replica has seen what the sidecar has; then it sends what differs from what the sidecar
// holds. One Update at most is under way; what changes meanwhile is sent together, as it is then.
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "authz/stream_messages.hpp"
#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "control/cluster_store.hpp"
#include "control/publisher.hpp"

namespace postern {

// What all streams share.
struct StreamCounters {
  std::uint64_t updates = 0;
  std::uint64_t resources = 0;
  std::uint64_t deltas = 0;  // of these: sent as edits to what the sidecar has
  std::uint64_t acks = 0;
  std::uint64_t nacks = 0;
  std::uint64_t lookups_known = 0;
  std::uint64_t lookups_unknown = 0;
  std::uint64_t lookups_limited = 0;
};

struct StreamLimits {
  std::uint32_t lookups_per_second = 20;
  std::uint32_t lookup_burst = 100;
};

// What a stream asks of its surroundings. REQUIRES: outlives the streams.
struct StreamContext {
  ClusterStore& store;
  Publisher& publisher;
  StreamLimits limits;
  std::function<void()> flush;        // brings the publisher up to the store
  std::function<const Mark&()> mark;  // of the store at the last flush
  StreamCounters counters;
  ResourcePtr trust_bundle = nullptr;  // of the built-in CA; null: sidecars have theirs from elsewhere
  // A sidecar waits until this replica has seen that mark; may be null. Called again and again while it does.
  std::function<void(const Mark& mark)> behind = nullptr;
  // Trust bundles of other trust domains by their resource's name; null: of a domain that is configured, but not known yet at this replica.
  std::map<std::string, ResourcePtr, std::less<>> federated_bundles = {};
};

// Whose stream it is, as the SVID says it.
struct StreamOwner {
  WorkloadKey key;
  std::string uid;
  std::string service_account;
};
// Refused, with the reason: an SVID of another trust domain, or one that does not name a pod and its UID.
Result<StreamOwner> stream_owner(const SpiffeId& id, const TrustDomain& trust_domain);

class PolicyStream {
 public:
  using Clock = std::chrono::steady_clock;

  // Why a stream ends, and what its close frame says.
  struct End {
    enum class Kind : std::uint8_t { malformed, refused, gone, try_later };
    Kind kind;
    std::string reason;
  };

  // `wake` is called when next_message() or ended() may have something new; never from within them.
  PolicyStream(StreamOwner owner, StreamContext& context, std::function<void()> wake, Clock::time_point now);
  PolicyStream(const PolicyStream&) = delete;
  PolicyStream& operator=(const PolicyStream&) = delete;

  // One message of the sidecar. REQUIRES: not called from Publisher::flush().
  void receive(std::string_view text, Clock::time_point now);
  // The next message that is due, encoded.
  std::optional<std::string> next_message();
  // The store or the publisher has moved on: a stream that waits for that may go on. REQUIRES: right after a flush.
  void proceed(Clock::time_point now);
  // A trust bundle of the context is another one.
  void trust_bundle_changed();
  const std::optional<End>& ended() const { return ended_; }

  const StreamOwner& owner() const { return owner_; }
  const std::optional<Mark>& presented() const { return hello_; }  // the mark of its Hello
  bool serving() const { return subscription_ != nullptr; }

  // For "in force" and for people.
  const HeldVersions& acknowledged() const { return acknowledged_; }
  std::chrono::system_clock::time_point enforced_since() const { return enforced_since_; }
  // Since when it has been sent something that it has not acknowledged; nothing: it enforces the newest that this replica has.
  const std::optional<Clock::time_point>& behind_since() const { return behind_since_; }
  const std::string& refusal() const { return refusal_; }          // the reason of the latest NACK, until something newer is acknowledged
  const std::string& waiting_for() const { return waiting_for_; }  // empty: serving
  const std::string& version() const { return version_; }          // of the sidecar's program
  std::uint64_t nonce() const { return nonce_; }
  bool outstanding() const { return outstanding_.has_value(); }
  bool acknowledged_once() const { return acknowledged_once_; }

 private:
  struct Outstanding {
    std::map<std::string, std::string> sent;  // name -> hash
    std::vector<std::string> removed;
    bool rules = false;   // holds the allow list or a peer set
    bool deltas = false;  // some of it are edits
  };

  void on(const Hello& hello, Clock::time_point now);
  void on(const Ack& ack, Clock::time_point now);
  void on(const Nack& nack, Clock::time_point now);
  void on(const Lookup& lookup, Clock::time_point now);
  void on(const Forget& forget, Clock::time_point now);
  bool take_answered(std::uint64_t nonce);
  bool may_look_up(Clock::time_point now);
  void wait_for(std::string reason);
  void end(End::Kind kind, std::string reason);
  std::optional<std::string> next_update();
  void add_trust_bundle(Subscription::Difference& difference) const;
  void add_federated_bundles(Subscription::Difference& difference) const;

  StreamOwner owner_;
  StreamContext& context_;
  std::function<void()> wake_;
  Clock::time_point pod_deadline_;

  std::optional<Mark> hello_;  // what the sidecar presented
  std::string version_;
  std::unique_ptr<Subscription> subscription_;
  HeldVersions acknowledged_;
  std::optional<Outstanding> outstanding_;
  std::uint64_t nonce_ = 0;
  bool pending_ = false;  // something may differ from what was acknowledged
  bool whole_ = true;     // ... and it has to be looked for everywhere
  bool deltas_ = true;    // the sidecar takes edits: it has refused none
  bool acknowledged_once_ = false;
  std::chrono::system_clock::time_point enforced_since_{};
  std::optional<Clock::time_point> behind_since_;
  std::string refusal_;
  std::string waiting_for_;
  bool announce_waiting_ = false;
  std::deque<LookupAnswer> answers_;         // due now
  std::vector<LookupAnswer> answers_later_;  // due after the next Update
  double lookup_tokens_;
  Clock::time_point lookup_refilled_;
  std::optional<End> ended_;
};

}  // namespace postern
