// KubeConnection: one TLS connection to the API server, and one request at a time on it. Internal to kube_client.cpp.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ssl/context.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "control/kube_client.hpp"

namespace postern {

class KubeConnection {
 public:
  using Clock = std::chrono::steady_clock;
  using Request = boost::beast::http::request<boost::beast::http::string_body>;

  KubeConnection(boost::asio::io_context& io, std::shared_ptr<boost::asio::ssl::context> context)
      : context_(std::move(context)), stream_(io, *context_) {}

  // TCP and TLS, with the server's certificate verified (RFC 6125): it must name `config.server_name`.
  boost::asio::awaitable<Result<void>> connect(const KubeConfig& config, Clock::time_point deadline);

  struct Outcome {
    Result<KubeResponse> response = Error{};
    bool answered = false;  // a byte of the answer came
    bool reusable = false;
  };
  // `sink` may be null. REQUIRES: `request` and `sink` live until this ends.
  boost::asio::awaitable<Outcome> perform(const Request& message, const KubeRequest& request, const KubeClient::Sink* sink,
                                          Clock::time_point deadline);

  void close();  // whatever is under way ends with an error

  Clock::time_point idle_since;
  bool used = false;  // it has carried a request already

 private:
  boost::asio::awaitable<Result<std::vector<boost::asio::ip::tcp::endpoint>>> resolve(const KubeConfig& config);
  boost::asio::awaitable<Outcome> receive(const KubeRequest& request, const KubeClient::Sink* sink);

  std::shared_ptr<boost::asio::ssl::context> context_;
  boost::beast::ssl_stream<boost::beast::tcp_stream> stream_;
  boost::beast::flat_buffer buffer_;
  std::array<char, 16384> piece_{};
  bool closed_ = false;
};

}  // namespace postern
