// HttpService: a small HTTP/1.1 server on one listening socket, with a thread of its own. One request per connection; what a
// caller can make it hold is bounded, and a malformed request ends that connection only.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/ip.hpp"
#include "base/listening_socket.hpp"
#include "base/log.hpp"

namespace postern {

// Whoever asks, for a handler that takes its time. Of the service's thread alone.
struct HttpCaller {
  bool gone = false;                // it has hung up: nobody waits for the answer
  std::function<void()> on_gone{};  // called when that happens
};

struct HttpRequest {
  std::string method;  // as sent: GET, POST, ...
  std::string path;    // without query
  std::string body;
  IpAddress source;                                               // 0.0.0.0 on a unix socket
  std::string query = {};                                         // what follows the '?', as sent
  std::string target = {};                                        // path and query, as sent
  std::vector<std::pair<std::string, std::string>> headers = {};  // in their order, as sent
  SocketAddress local = {};                                       // where it was asked; 0.0.0.0:0 on a unix socket
  std::shared_ptr<HttpCaller> caller = {};                        // never null in a service
};

struct HttpAnswer {
  unsigned status = 200;  // 0: none, the connection just ends
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct HttpLimits {
  std::uint32_t header_bytes = 8U << 10;
  std::uint64_t body_bytes = 4U << 10;
  std::size_t connections = 64;               // one more closes the oldest that is not being answered: idle ones cannot keep a probe out
  std::chrono::milliseconds deadline{5'000};  // from accept to the request's last byte, and for the answer once the handler has it
};

class HttpService {
 public:
  // Runs on the service's thread. An exception is answered 500.
  using Handler = std::function<boost::asio::awaitable<HttpAnswer>(HttpRequest)>;

  // Serves at once. `name` is for the log and the thread. REQUIRES: `log` outlives this.
  HttpService(std::string name, ListeningSocket socket, Handler handler, Log& log, HttpLimits limits = {});
  ~HttpService();  // ends the thread and every connection; waits for a handler that is running
  HttpService(const HttpService&) = delete;
  HttpService& operator=(const HttpService&) = delete;

 private:
  struct Session;
  using Acceptor = boost::asio::basic_socket_acceptor<boost::asio::generic::stream_protocol>;

  boost::asio::awaitable<void> accept_loop();
  boost::asio::awaitable<void> serve(std::shared_ptr<Session> session);
  boost::asio::awaitable<void> converse(Session& session);
  boost::asio::awaitable<HttpAnswer> answer(Session& session, HttpRequest request);
  boost::asio::awaitable<void> watch(std::shared_ptr<Session> session, std::shared_ptr<HttpCaller> caller);
  void admit(std::shared_ptr<Session> session);

  std::string name_;
  Handler handler_;
  Log& log_;
  HttpLimits limits_;
  std::list<std::shared_ptr<Session>> sessions_;  // the oldest first; touched by the thread only
  boost::asio::io_context io_{1};
  Acceptor acceptor_;
  std::thread thread_;
};

}  // namespace postern
