// FakeApi: an API server that says what a test tells it to, over real TLS: for what the real one does only by chance.
#pragma once

#include <sys/socket.h>

#include <boost/asio/buffer.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/write.hpp>
#include <chrono>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "control/kube_config.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern::test {

// One answer: its bytes, and whether the connection goes on, is cut, or stays silent from then on.
struct Answer {
  enum class Then { next_request, cut, silence };
  std::string bytes;
  Then then = Then::next_request;
};

inline Answer json(std::string body, unsigned status = 200, const std::string& headers = {}) {
  return {"HTTP/1.1 " + std::to_string(status) + " x\r\nContent-Type: application/json\r\nContent-Length: " + std::to_string(body.size()) +
              "\r\n" + headers + "\r\n" + body,
          Answer::Then::next_request};
}

// A chunked body in these pieces; `ends` with the last chunk.
inline Answer chunks(const std::vector<std::string>& pieces, bool ends = true, Answer::Then then = Answer::Then::next_request) {
  std::string out = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  for (const std::string& piece : pieces) {
    char length[20];
    std::snprintf(length, sizeof length, "%zx\r\n", piece.size());
    out += length + piece + "\r\n";
  }
  return {ends ? out + "0\r\n\r\n" : out, then};
}

class FakeApi {
 public:
  explicit FakeApi(std::vector<Answer> answers)
      : answers_(answers.begin(), answers.end()),
        authority_(TestAuthority::root("fake api")),
        context_(boost::asio::ssl::context::tls_server),
        acceptor_(io_, {boost::asio::ip::address_v4::loopback(), 0}) {
    SvidOptions options;
    options.uris = {"spiffe://example.org/api"};
    options.dns = "kubernetes";
    const TestSvid certificate = authority_.issue(options);
    context_.use_certificate_chain(boost::asio::buffer(certificate.chain_pem));
    context_.use_private_key(boost::asio::buffer(certificate.key_pem), boost::asio::ssl::context::pem);
    thread_ = std::thread([this] { serve(); });
  }
  ~FakeApi() {
    ::shutdown(acceptor_.native_handle(), SHUT_RDWR);
    {
      const std::lock_guard lock(mutex_);
      ended_ = true;
      if (connection_ >= 0) ::shutdown(connection_, SHUT_RDWR);
    }
    thread_.join();
  }
  FakeApi(const FakeApi&) = delete;
  FakeApi& operator=(const FakeApi&) = delete;

  KubeConfig config() const {
    KubeConfig out;
    out.source = "test";
    out.host = "127.0.0.1";
    out.port = acceptor_.local_endpoint().port();
    out.server_name = "kubernetes";
    out.authority.text = authority_.certificate_pem();
    out.token.text = "secret";
    return out;
  }
  // The requests so far: their first line and headers.
  std::vector<std::string> requests() const {
    const std::lock_guard lock(mutex_);
    return requests_;
  }
  std::size_t connections() const {
    const std::lock_guard lock(mutex_);
    return connections_;
  }

 private:
  void serve() {
    boost::system::error_code ec;
    while (true) {
      boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream(io_, context_);
      acceptor_.accept(stream.next_layer(), ec);
      if (ec) return;
      {
        const std::lock_guard lock(mutex_);
        if (ended_) return;
        connection_ = stream.next_layer().native_handle();
      }
      stream.handshake(boost::asio::ssl::stream_base::server, ec);
      if (!ec) converse(stream);
      const std::lock_guard lock(mutex_);
      connection_ = -1;
    }
  }

  void converse(boost::asio::ssl::stream<boost::asio::ip::tcp::socket>& stream) {
    boost::system::error_code ec;
    std::string received;
    bool first = true;
    while (true) {
      const std::size_t head = boost::asio::read_until(stream, boost::asio::dynamic_buffer(received), "\r\n\r\n", ec);
      if (ec) return;
      Answer answer{.bytes = {}, .then = Answer::Then::silence};  // where a test says no more
      {
        const std::lock_guard lock(mutex_);
        if (std::exchange(first, false)) ++connections_;
        requests_.push_back(received.substr(0, head));
        if (!answers_.empty()) {
          answer = std::move(answers_.front());
          answers_.pop_front();
        }
      }
      const std::size_t at = received.find("Content-Length: ");
      const std::size_t body = at < head ? std::stoul(received.substr(at + 16)) : 0;
      while (received.size() < head + body) {
        char part[4096];
        const std::size_t n = stream.read_some(boost::asio::buffer(part), ec);
        if (ec) return;
        received.append(part, n);
      }
      received.erase(0, head + body);
      boost::asio::write(stream, boost::asio::buffer(answer.bytes), ec);
      if (answer.then == Answer::Then::cut) return;
      if (answer.then == Answer::Then::silence) {
        char byte = 0;
        stream.read_some(boost::asio::buffer(&byte, 1), ec);  // until the client goes away
        return;
      }
    }
  }

  mutable std::mutex mutex_;
  std::deque<Answer> answers_;
  std::vector<std::string> requests_;
  std::size_t connections_ = 0;  // that carried a request
  int connection_ = -1;
  bool ended_ = false;
  TestAuthority authority_;
  boost::asio::io_context io_;
  boost::asio::ssl::context context_;
  boost::asio::ip::tcp::acceptor acceptor_;
  std::thread thread_;
};

// Runs `io` until `condition` holds; false when it does not within `deadline`.
template <class Condition>
bool run_until(boost::asio::io_context& io, Condition condition, std::chrono::seconds deadline = std::chrono::seconds(20)) {
  const auto end = std::chrono::steady_clock::now() + deadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    io.restart();
    io.run_one_for(std::chrono::milliseconds(10));
  }
  return true;
}

}  // namespace postern::test
