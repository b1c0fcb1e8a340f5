// SessionCache: TLS sessions of all workers, both ends. Sharded, bounded (least recently used goes first), thread-safe.
// It outlives the SSL_CTXs that share it; who may use a session is decided by its key (client) and session ID context (server).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

#include "base/ip.hpp"
#include "certs/openssl.hpp"
#include "certs/svid.hpp"

namespace postern {

// Sessions offered to one destination under one identity, bundle and ALPN; the last three are in `context`.
struct ClientSessionKey {
  SocketAddress destination;
  std::uint64_t context = 0;
  bool operator==(const ClientSessionKey&) const = default;
};

class SessionCache {
 public:
  explicit SessionCache(std::size_t max_server_sessions = 8192, std::size_t max_client_sessions = 2048);
  ~SessionCache();
  SessionCache(const SessionCache&) = delete;
  SessionCache& operator=(const SessionCache&) = delete;

  // Inbound: by session ID.
  void put_server(std::string_view id, SessionPtr session, SystemTime ends);
  SessionPtr find_server(std::string_view id, SystemTime now);
  void remove_server(std::string_view id);

  // Outbound: one session for each key, used any number of times until it ends or is replaced.
  void put_client(const ClientSessionKey& key, SessionPtr session, SystemTime ends);
  SessionPtr find_client(const ClientSessionKey& key, SystemTime now);
  void remove_client(const ClientSessionKey& key, const SSL_SESSION* session);  // only if it is still that one; null: whichever it is

  void clear();
  std::size_t server_size() const;
  std::size_t client_size() const;

 private:
  struct Shards;
  std::unique_ptr<Shards> shards_;
};

}  // namespace postern
