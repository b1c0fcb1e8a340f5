// This worker's open connections: what a change of policy decides again.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "proxy/event_loop.hpp"
#include "proxy/judge.hpp"

namespace postern {

// One connection that policy allowed, or is about to decide on.
class LiveConnection : public ListHook {
 public:
  explicit LiveConnection(ConnectionFacts facts) : facts(std::move(facts)) {}
  // Must end now, for this reason. Called at most once.
  virtual void revoke(Reason reason) = 0;
  // One JSON object for the admin API; called only there.
  virtual std::string describe() const = 0;
  // Whether a change of policy concerns it (the pod's own traffic to itself is never decided).
  virtual bool decided() const { return true; }

  ConnectionFacts facts;

 protected:
  ~LiveConnection() = default;

 private:
  friend class LiveConnections;
  std::uint64_t checked_ = 0;  // round in which it was decided last
};

class LiveConnections final : public Waiter {
 public:
  explicit LiveConnections(EventLoop& loop) : loop_(loop) {}

  // Registered before it is decided, so that no policy change falls between. It leaves when it dies.
  void add(LiveConnection& connection);
  // Decides every connection again, a slice per turn; `done` is called when the last one has been. A later call takes over an earlier one's
  // remaining work, and answers for both.
  void recheck(std::shared_ptr<const PolicySnapshot> snapshot, std::function<void()> done);
  void revoke_all(Reason reason);
  bool empty() const { return connections_.empty(); }
  void for_each(const std::function<void(LiveConnection&)>& visit);

  void wake() override;

 private:
  static constexpr int slice = 256;
  EventLoop& loop_;
  IntrusiveList<LiveConnection> connections_;  // those checked longest ago first
  std::uint64_t round_ = 0;
  std::shared_ptr<const PolicySnapshot> snapshot_;
  std::vector<std::function<void()>> done_;
};

}  // namespace postern
