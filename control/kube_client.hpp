// KubeClient: HTTPS/1.1 to the Kubernetes API server. Coroutines on one io_context thread; results are values; everything has a bound and
// a deadline. Connections are kept and used again; token, authority and client certificate are read anew when their files change.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "control/kube_config.hpp"

namespace postern {

enum class KubeMethod : std::uint8_t { get, post, put, patch, remove };

// Ends a stream() from outside. REQUIRES: used on the client's thread.
class KubeStop {
 public:
  void stop() {
    stopped_ = true;
    if (close_) close_();
  }
  bool stopped() const { return stopped_; }

 private:
  friend class KubeClient;
  bool stopped_ = false;
  std::function<void()> close_;  // its connection, while it has one
};

struct KubeRequest {
  KubeMethod method = KubeMethod::get;
  std::string path;                               // with its query, from /api or /apis
  std::string body;                               // JSON
  std::string content_type = "application/json";  // a PATCH: application/merge-patch+json and its like
  std::chrono::milliseconds deadline{
      30'000};                         // to the answer's last byte; of stream(): to its header, and from then on from one piece to the next
  std::size_t body_bytes = 16U << 20;  // the longest answer that is kept
  std::shared_ptr<KubeStop> stop = nullptr;
};

// What the server said, whatever it was. A refusal's body is a Status: see refusal_of().
struct KubeResponse {
  unsigned status = 0;
  std::string body;
  std::chrono::seconds retry_after{0};  // of a 429 or 503

  bool ok() const { return status >= 200 && status < 300; }
};

// "403 Forbidden: pods is forbidden: User ...": the message of the Status in the body of an answer that is not ok, in words for a person.
Error refusal_of(const KubeRequest& request, const KubeResponse& response);

class KubeClient {
 public:
  // REQUIRES: `io` is run by one thread, and outlives this.
  KubeClient(boost::asio::io_context& io, KubeConfig config);
  ~KubeClient();  // as close()
  KubeClient(const KubeClient&) = delete;
  KubeClient& operator=(const KubeClient&) = delete;

  // An Error: no answer, or one that was cut off or too long. A request that may have no effect twice (GET, PUT, DELETE) is sent a second
  // time when the connection it was sent on had been idle and turns out to be dead.
  boost::asio::awaitable<Result<KubeResponse>> request(KubeRequest request);

  // As request(), but the body of a 200 goes to `sink` piece by piece, an empty one as soon as the server has said 200; `sink` returns
  // false to end it (then so does this, with success). Returns when the body has ended; an Error also when it was cut off in the middle or
  // paused for longer than the deadline, or stopped.
  using Sink = std::function<bool(std::string_view piece)>;
  boost::asio::awaitable<Result<KubeResponse>> stream(KubeRequest request, Sink sink);

  // Ends every connection; whatever is under way ends with an Error soon, and every later request at once.
  void close();
  bool closed() const;

  const KubeConfig& config() const;
  struct Stats {
    std::uint64_t requests = 0;
    std::uint64_t failures = 0;     // no answer
    std::uint64_t connections = 0;  // made so far
    std::uint64_t reloads = 0;      // of a token, authority or client certificate
  };
  Stats stats() const;

 private:
  class Impl;
  std::shared_ptr<Impl> impl_;
};

}  // namespace postern
