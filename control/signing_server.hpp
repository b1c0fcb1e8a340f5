// SigningServer: a CSR and a pod's token in, an X.509-SVID out (docs/identity.md). HTTPS; the server alone has a certificate, the control
// plane's own SVID. Coroutines on one io_context thread; what one caller does never holds up another.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "base/http_service.hpp"
#include "base/listening_socket.hpp"
#include "base/log.hpp"
#include "certs/signing_messages.hpp"
#include "certs/svid_source.hpp"
#include "certs/tls_context.hpp"
#include "control/authority_store.hpp"
#include "control/bundle_acks.hpp"
#include "control/config.hpp"
#include "control/kube_client.hpp"
#include "control/rate_limit.hpp"

namespace postern {

class SigningServer {
 public:
  // REQUIRES: all outlive this; `io` is run by one thread.
  SigningServer(boost::asio::io_context& io, const ControlConfig& config, KubeClient& client, const AuthorityStore& authority,
                BundleAcks& acks, Log& log);
  ~SigningServer();
  SigningServer(const SigningServer&) = delete;
  SigningServer& operator=(const SigningServer&) = delete;

  // Connections accepted from now on see this SVID. Before the first, none are taken.
  Result<void> use_identity(const X509ContextPtr& identity);
  void start(ListeningSocket socket);
  void close();

  struct Stats {
    std::uint64_t issued = 0;
    std::map<std::string_view, std::uint64_t> refused;  // by reason
  };
  const Stats& stats() const { return stats_; }

 private:
  struct Connection;

  boost::asio::awaitable<void> accept_loop();
  boost::asio::awaitable<void> serve(std::shared_ptr<Connection> connection);
  boost::asio::awaitable<HttpAnswer> answer(std::string method, std::string path, std::string body, std::string source);
  boost::asio::awaitable<HttpAnswer> sign(SigningRequest request, KeyPtr key, std::string source);
  HttpAnswer refuse(unsigned status, std::string_view reason, const std::string& message, const std::string& who);

  boost::asio::io_context& io_;
  const ControlConfig& config_;
  KubeClient& client_;
  const AuthorityStore& authority_;
  BundleAcks& acks_;
  Log& log_;
  std::unique_ptr<TlsContext> tls_;
  std::uint64_t tls_generation_ = 0;
  boost::asio::ip::tcp::acceptor acceptor_;
  boost::asio::steady_timer room_;  // cancelled when a connection has ended
  std::map<const Connection*, std::shared_ptr<Connection>> connections_;
  RateLimit by_source_;
  RateLimit overall_;
  RateLimit by_pod_;
  RateLimit log_lines_;  // anybody can cause refusals who can connect
  bool closing_ = false;
  Stats stats_;
};

}  // namespace postern
