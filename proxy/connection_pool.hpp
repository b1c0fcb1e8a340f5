// Recycled mTLS connections of one worker, by destination pod and port (architecture section 2a). Outbound side.
#pragma once

#include <memory>
#include <unordered_map>
#include <vector>

#include "authz/snapshot.hpp"
#include "proxy/peer_connection.hpp"

namespace postern {

class ConnectionPool {
 public:
  ConnectionPool(EventLoop& loop, const Config& config, WorkerCounters& counters);
  ~ConnectionPool();

  // The one used last for this destination that is still fit: same SVID and bundle (TLS generation), neither SVID past its end, not known
  // dead.
  std::unique_ptr<PeerConnection> take(const SocketAddress& destination, std::uint64_t tls_generation);
  // REQUIRES: its stream ended cleanly in both directions and nothing is left to read. Beyond the bounds the oldest goes.
  void put(std::unique_ptr<PeerConnection> connection);

  // Closes what a new policy no longer allows, and what belongs to a changed workload record.
  void recheck(const PolicySnapshot* before, const PolicySnapshot& now);
  void clear();
  std::size_t size() const { return size_; }

 private:
  struct Idle;
  using Idles = std::vector<std::unique_ptr<Idle>>;  // the most recently used last
  void drop(Idle& idle);
  void close_expired();

  EventLoop& loop_;
  const Config& config_;
  WorkerCounters& counters_;
  std::unordered_map<SocketAddress, Idles, SocketAddressHash> idle_;
  std::size_t size_ = 0;
  Timer sweep_;
};

}  // namespace postern
