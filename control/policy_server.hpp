// PolicyServer: the sidecars' streams: accepts, authenticates (TLS, SPIFFE), upgrades to WebSocket, and carries what PolicyStream says.
// Everything runs on the io_context's one thread. What ends one stream never touches another.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/listening_socket.hpp"
#include "base/log.hpp"
#include "certs/svid_source.hpp"
#include "certs/tls_context.hpp"
#include "control/config.hpp"
#include "control/policy_stream.hpp"

namespace postern {

class PolicyServer {
 public:
  // `acknowledged` is called after each ACK, NACK, and coming or going of a stream; `behind`: see StreamContext. REQUIRES: all outlive
  // this; `io` is run by one thread.
  PolicyServer(boost::asio::io_context& io, const ControlConfig& config, ClusterStore& store, Publisher& publisher, Log& log,
               std::function<void()> flush, std::function<void()> acknowledged, std::function<void(const Mark&)> behind = nullptr);
  // REQUIRES: `io` does not run any more, or every stream has ended.
  ~PolicyServer();
  PolicyServer(const PolicyServer&) = delete;
  PolicyServer& operator=(const PolicyServer&) = delete;

  // Connections accepted from now on use this SVID; streams that are open stay.
  Result<void> use_identity(const X509ContextPtr& identity);
  // Tickets that new connections bring are opened, and made, with these: what was made with others means a full handshake.
  Result<void> use_ticket_keys(TicketKeys keys);
  // What every stream carries from now on beside its subscription (docs/stream.md, trust-bundle).
  void use_trust_bundle(const ResourcePtr& bundle);
  // Trust bundles of other trust domains, as StreamContext has them.
  void use_federated_bundles(std::map<std::string, ResourcePtr, std::less<>> bundles);
  // Of the sidecars that are in step, or on their way there.
  void for_each_stream(const std::function<void(const PolicyStream&)>& visit) const;
  // Accepts. Streams wait until the store is synced.
  void start(ListeningSocket socket);
  // Right after a flush: the mark that updates carry from now on, and streams that waited go on.
  void flushed(Mark mark);
  // Accepts no more, and tells every stream that we are going away. `count()` is 0 when all have said goodbye.
  void close();
  std::size_t count() const { return sessions_.size(); }

  // What a workload's stream has acknowledged; null: no stream.
  const PolicyStream* stream_of(const WorkloadKey& key) const;

  struct Stats {
    StreamCounters streams;
    std::uint64_t accepted = 0;
    std::uint64_t bytes_sent = 0;  // of messages
    std::uint64_t bytes_received = 0;
    std::map<std::string_view, std::uint64_t> ended;  // by reason
    std::uint64_t tls_resumed = 0;
    std::size_t open = 0;     // said hello and not ended
    std::size_t serving = 0;  // of these: have a subscription
    std::size_t handshaking = 0;
    std::size_t refused = 0;      // of the open ones: the newest Update was refused
    std::size_t outstanding = 0;  // of the open ones: an Update is under way
  };
  Stats stats() const;
  std::string streams_json() const;  // GET /streams

 private:
  struct Session;
  using SessionPtr = std::shared_ptr<Session>;

  boost::asio::awaitable<void> accept_loop();
  boost::asio::awaitable<void> sweep_loop();
  boost::asio::awaitable<void> serve(SessionPtr session);
  boost::asio::awaitable<Result<void>> upgrade(Session& session, SslPtr ssl);
  boost::asio::awaitable<void> read_messages(SessionPtr session);
  boost::asio::awaitable<void> write_messages(SessionPtr session);
  boost::asio::awaitable<void> finish(SessionPtr session);
  Result<void> renew_tls();
  void proceed_all(PolicyStream::Clock::time_point now);
  void admit(Session& session);
  void take_over(Session& session);
  DeniedBy denied(const Session& session) const;  // by the mesh's deny-list
  void end_denied(Session& session);
  void remove(const SessionPtr& session, std::string_view reason, const std::string& detail);
  void give_back_memory();
  void fail(Session& session, std::string_view reason, std::string detail);

  boost::asio::io_context& io_;
  const ControlConfig& config_;
  Log& log_;
  std::function<void()> acknowledged_;
  StreamContext context_;
  Mark mark_;
  X509ContextPtr identity_;
  TicketKeysPtr ticket_keys_;  // null: none given yet, and sessions are not resumed
  std::unique_ptr<TlsContext> tls_;
  std::uint64_t tls_generation_ = 0;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer room_;  // cancelled when a handshake has ended
  boost::asio::steady_timer sweep_;
  std::map<const Session*, SessionPtr> sessions_;
  std::map<WorkloadKey, Session*> by_owner_;  // the streams that are serving
  std::size_t handshaking_ = 0;
  std::uint64_t trimmed_at_ = 0;  // Stats::accepted then
  bool closing_ = false;
  Stats stats_;
  // Of the lines that anybody can cause who can connect, a few a second are enough.
  PolicyStream::Clock::time_point failures_since_;
  unsigned failures_logged_ = 0;
};

}  // namespace postern
