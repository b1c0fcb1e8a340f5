#include "certs/session_cache.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <list>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>

namespace postern {
namespace {

// A map that forgets what was used least recently. A session is handed out with a reference taken under the lock, so that
// its removal by another thread cannot free it in between.
template <class Key, class Hash>
class LruMap {
 public:
  void put(const Key& key, SessionPtr session, SystemTime ends, std::size_t capacity) {
    // Freed after the lock: a session may own a certificate chain.
    SessionPtr dropped;
    const std::lock_guard lock(mutex_);
    if (const auto found = index_.find(key); found != index_.end()) {
      dropped = std::exchange(found->second->session, std::move(session));
      found->second->ends = ends;
      order_.splice(order_.begin(), order_, found->second);
      return;
    }
    if (index_.size() >= capacity) {
      dropped = std::move(order_.back().session);
      index_.erase(order_.back().key);
      order_.pop_back();
    }
    order_.push_front(Entry{key, std::move(session), ends});
    index_.emplace(key, order_.begin());
  }

  template <class LookupKey>
  SessionPtr find(const LookupKey& key, SystemTime now) {
    SessionPtr dropped;
    const std::lock_guard lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return nullptr;
    const auto entry = found->second;
    if (now >= entry->ends || SSL_SESSION_is_resumable(entry->session.get()) == 0) {
      dropped = std::move(entry->session);
      index_.erase(found);
      order_.erase(entry);
      return nullptr;
    }
    order_.splice(order_.begin(), order_, entry);
    return share(entry->session.get());
  }

  // `session` null: whatever is there.
  template <class LookupKey>
  void remove(const LookupKey& key, const SSL_SESSION* session) {
    SessionPtr dropped;
    const std::lock_guard lock(mutex_);
    const auto found = index_.find(key);
    if (found == index_.end()) return;
    const auto entry = found->second;
    if (session != nullptr && entry->session.get() != session) return;
    dropped = std::move(entry->session);
    index_.erase(found);
    order_.erase(entry);
  }

  void clear() {
    std::list<Entry> dropped;
    const std::lock_guard lock(mutex_);
    index_.clear();
    dropped.swap(order_);
  }

  std::size_t size() const {
    const std::lock_guard lock(mutex_);
    return index_.size();
  }

 private:
  struct Entry {
    Key key;
    SessionPtr session;
    SystemTime ends;
  };

  mutable std::mutex mutex_;
  std::list<Entry> order_;  // most recently used first
  std::unordered_map<Key, typename std::list<Entry>::iterator, Hash, std::equal_to<>> index_;
};

struct SessionIdHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view id) const noexcept { return std::hash<std::string_view>{}(id); }
};

struct ClientKeyHash {
  std::size_t operator()(const ClientSessionKey& key) const noexcept {
    return SocketAddressHash{}(key.destination) ^ (static_cast<std::size_t>(key.context) * 0x9E3779B97F4A7C15ULL);
  }
};

constexpr std::size_t shard_count = 16;

std::size_t shard_of(std::size_t hash) { return (hash ^ (hash >> 32U)) % shard_count; }
std::size_t per_shard(std::size_t total) { return std::max<std::size_t>(1, (total + shard_count - 1) / shard_count); }

}  // namespace

struct SessionCache::Shards {
  using ServerMap = LruMap<std::string, SessionIdHash>;
  using ClientMap = LruMap<ClientSessionKey, ClientKeyHash>;

  std::array<ServerMap, shard_count> server;
  std::array<ClientMap, shard_count> client;
  std::size_t server_capacity;
  std::size_t client_capacity;

  ServerMap& of(std::string_view id) { return server[shard_of(SessionIdHash{}(id))]; }
  ClientMap& of(const ClientSessionKey& key) { return client[shard_of(ClientKeyHash{}(key))]; }
};

SessionCache::SessionCache(std::size_t max_server_sessions, std::size_t max_client_sessions) : shards_(std::make_unique<Shards>()) {
  shards_->server_capacity = per_shard(max_server_sessions);
  shards_->client_capacity = per_shard(max_client_sessions);
}

SessionCache::~SessionCache() = default;

void SessionCache::put_server(std::string_view id, SessionPtr session, SystemTime ends) {
  shards_->of(id).put(std::string(id), std::move(session), ends, shards_->server_capacity);
}

SessionPtr SessionCache::find_server(std::string_view id, SystemTime now) { return shards_->of(id).find(id, now); }

void SessionCache::remove_server(std::string_view id) { shards_->of(id).remove(id, nullptr); }

void SessionCache::put_client(const ClientSessionKey& key, SessionPtr session, SystemTime ends) {
  shards_->of(key).put(key, std::move(session), ends, shards_->client_capacity);
}

SessionPtr SessionCache::find_client(const ClientSessionKey& key, SystemTime now) { return shards_->of(key).find(key, now); }

void SessionCache::remove_client(const ClientSessionKey& key, const SSL_SESSION* session) { shards_->of(key).remove(key, session); }

void SessionCache::clear() {
  for (auto& shard : shards_->server) shard.clear();
  for (auto& shard : shards_->client) shard.clear();
}

std::size_t SessionCache::server_size() const {
  std::size_t total = 0;
  for (const auto& shard : shards_->server) total += shard.size();
  return total;
}

std::size_t SessionCache::client_size() const {
  std::size_t total = 0;
  for (const auto& shard : shards_->client) total += shard.size();
  return total;
}

}  // namespace postern
