#include "proxy/connection_pool.hpp"

#include <algorithm>
#include <array>

#include "proxy/judge.hpp"

namespace postern {

// An idle connection stays under watch: the peer may close it at any time.
struct ConnectionPool::Idle final : Waiter {
  Idle(ConnectionPool& pool, std::unique_ptr<PeerConnection> held) : pool(pool), connection(std::move(held)), since(pool.loop_.now()) {
    connection->tls.socket().watch().waiter = this;
  }
  ~Idle() {
    if (connection && connection->tls.socket().watch().waiter == this) connection->tls.socket().watch().waiter = nullptr;
  }
  // Nothing may arrive while it is idle but TLS's own messages.
  bool alive() {
    std::array<std::uint8_t, 64> unexpected;
    return !connection->tls.socket().watch().failed && connection->read(unexpected).status == IoStatus::would_block;
  }
  void wake() override {
    if (!alive()) pool.drop(*this);
  }
  ConnectionPool& pool;
  std::unique_ptr<PeerConnection> connection;
  std::chrono::steady_clock::time_point since;
};

ConnectionPool::ConnectionPool(EventLoop& loop, const Config& config, WorkerCounters& counters)
    : loop_(loop), config_(config), counters_(counters), sweep_(loop, [this] { close_expired(); }) {}

ConnectionPool::~ConnectionPool() { clear(); }

std::unique_ptr<PeerConnection> ConnectionPool::take(const SocketAddress& destination, std::uint64_t tls_generation) {
  const auto at = idle_.find(destination);
  if (at == idle_.end()) return nullptr;
  Idles& idles = at->second;
  std::unique_ptr<PeerConnection> found;
  while (!found && !idles.empty()) {
    const std::unique_ptr<Idle> idle = std::move(idles.back());
    idles.pop_back();
    --size_;
    const auto wall = std::chrono::system_clock::now();
    const PeerConnection& candidate = *idle->connection;
    const bool current = candidate.tls.context().generation() == tls_generation && candidate.tls.context().usable(wall) &&
                         candidate.identity->not_after > wall;
    // Only what an edge has announced is read: no system call for a connection on which nothing happened.
    if (!current || (candidate.tls.may_read() && !idle->alive())) continue;
    idle->connection->tls.socket().watch().waiter = nullptr;
    found = std::move(idle->connection);
  }
  if (idles.empty()) idle_.erase(at);
  counters_.pool_idle.set(size_);
  return found;
}

void ConnectionPool::put(std::unique_ptr<PeerConnection> connection) {
  const SocketAddress destination = connection->remote;
  Idles& idles = idle_[destination];
  if (idles.size() >= config_.recycling.per_destination || size_ >= config_.recycling.total) {
    if (idles.empty()) {
      idle_.erase(destination);
      return;  // full of others: they are as good
    }
    idles.erase(idles.begin());
    --size_;
  }
  idles.push_back(std::make_unique<Idle>(*this, std::move(connection)));
  ++size_;
  counters_.pool_idle.set(size_);
  if (!sweep_.armed()) sweep_.arm(std::chrono::seconds(1));
}

void ConnectionPool::drop(Idle& idle) {
  const auto at = idle_.find(idle.connection->remote);
  std::erase_if(at->second, [&idle](const auto& each) { return each.get() == &idle; });
  if (at->second.empty()) idle_.erase(at);
  --size_;
  counters_.pool_idle.set(size_);
}

void ConnectionPool::close_expired() {
  const auto oldest = loop_.now() - config_.recycling.outbound_idle;
  size_ = 0;
  for (auto at = idle_.begin(); at != idle_.end();) {
    std::erase_if(at->second, [&](const auto& idle) {
      if (idle->since > oldest) return false;
      idle->connection->tls.send_close_notify();
      return true;
    });
    size_ += at->second.size();
    at = at->second.empty() ? idle_.erase(at) : std::next(at);
  }
  counters_.pool_idle.set(size_);
  if (size_ > 0) sweep_.arm(std::chrono::seconds(1));
}

void ConnectionPool::recheck(const PolicySnapshot* before, const PolicySnapshot& now) {
  const bool self_changed = before == nullptr || !(before->self() == now.self());
  if (self_changed) return clear();
  for (auto at = idle_.begin(); at != idle_.end();) {
    const Workload* was = before->workload_at(at->first.address);
    const Workload* is = now.workload_at(at->first.address);
    const bool same_record = was != nullptr && is != nullptr && *was == *is;
    std::erase_if(at->second, [&](const auto& idle) {
      const ConnectionFacts facts{Direction::outbound, at->first.address, at->first.port, idle->connection->identity};
      if (same_record && judge(&now, facts).allowed) return false;
      idle->connection->tls.send_close_notify();
      return true;
    });
    at = at->second.empty() ? idle_.erase(at) : std::next(at);
  }
  size_ = 0;
  for (const auto& [destination, idles] : idle_) size_ += idles.size();
  counters_.pool_idle.set(size_);
}

void ConnectionPool::clear() {
  for (const auto& [destination, idles] : idle_) {
    for (const auto& idle : idles) idle->connection->tls.send_close_notify();
  }
  idle_.clear();
  size_ = 0;
  counters_.pool_idle.set(0);
}

}  // namespace postern
