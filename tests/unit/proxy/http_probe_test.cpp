#include "proxy/http_probe.hpp"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <future>
#include <mutex>
#include <optional>
#include <thread>

#include "base/listening_socket.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// One end of a connection; every wait ends after 10 s.
class Peer {
 public:
  explicit Peer(int fd) : fd_(fd) {
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  }
  static Peer to(Port port) {
    Peer peer(::socket(AF_INET, SOCK_STREAM, 0));
    const sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(port.number), .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    EXPECT_EQ(::connect(peer.fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
    return peer;
  }
  Peer(Peer&& from) noexcept : fd_(std::exchange(from.fd_, -1)) {}
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  Peer& operator=(Peer&&) = delete;
  ~Peer() {
    if (fd_ >= 0) ::close(fd_);
  }

  void send(const std::string& bytes) const { ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL); }
  // Until `end` has been seen, or the other side closes.
  std::string receive(const std::string& end = {}) const {
    std::string all;
    char chunk[4096];
    while (end.empty() || all.find(end) == std::string::npos) {
      const ssize_t n = ::recv(fd_, chunk, sizeof(chunk), 0);
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return all + "timed out";
      if (n <= 0) break;
      all.append(chunk, static_cast<std::size_t>(n));
    }
    return all;
  }

 private:
  int fd_;
};

// An application that answers each connection's request by what the test says; one connection at a time.
class Application {
 public:
  using Serve = std::function<void(const Peer&, const std::string& request)>;

  explicit Application(Serve serve) : socket_(*listen_on_port(Port{0}, "test")), port_(socket_.port()) {
    ::fcntl(socket_.fd(), F_SETFL, ::fcntl(socket_.fd(), F_GETFL) & ~O_NONBLOCK);
    thread_ = std::thread([this, serve = std::move(serve)] {
      while (true) {
        const int fd = ::accept(socket_.fd(), nullptr, nullptr);
        if (fd < 0) return;
        const Peer peer(fd);
        serve(peer, peer.receive("\r\n\r\n"));
      }
    });
  }
  explicit Application(const std::string& answer) : Application([answer](const Peer& peer, const std::string&) { peer.send(answer); }) {}
  ~Application() {
    ::shutdown(socket_.fd(), SHUT_RDWR);
    thread_.join();
  }
  Application(const Application&) = delete;
  Application& operator=(const Application&) = delete;
  Port port() const { return port_; }

 private:
  ListeningSocket socket_;
  Port port_;
  std::thread thread_;
};

std::string answer_of(const std::string& body, const std::string& more = {}) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" + more + "\r\n" + body;
}

class HttpProbe : public ::testing::Test {
 protected:
  HttpProbe() : socket_(*listen_on_port(Port{0}, "test")), port(socket_.port()) {
    service_.emplace(
        "test", std::move(socket_), [this](HttpRequest request) { return probes_.ask(probe, std::move(request)); }, log_,
        HttpLimits{.deadline = 60s});
  }
  void asks(Port application, std::string target = "/healthz?full=1") {
    probe = {AppProbe::Scheme::http, false, application, std::move(target)};
  }
  std::string get(const std::string& headers = {}) const { return begin(headers).receive(); }
  Peer begin(const std::string& headers = {}) const {
    Peer peer = Peer::to(port);
    peer.send("GET /x HTTP/1.1\r\n" +
              (headers.find("Host:") == std::string::npos ? "Host: 127.0.0.1:" + std::to_string(port.number) + "\r\n" : "") + headers +
              "\r\n");
    return peer;
  }

  Log log_{LogLevel::error};
  HttpProbes probes_{log_};
  AppProbe probe;  // set before it is asked for
  ListeningSocket socket_;
  Port port;
  std::optional<HttpService> service_;
};

TEST_F(HttpProbe, PassesTheRequestOn) {
  std::promise<std::string> seen;
  const Application app([&](const Peer& peer, const std::string& request) {
    seen.set_value(request);
    peer.send(answer_of("fine", "Content-Type: text/x\r\nSet-Cookie: a=b\r\n"));
  });
  asks(app.port());
  const std::string answer =
      get("User-Agent: kube-probe/1.34\r\nX-One: 1\r\nX-One: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nTE: trailers\r\n");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/x\r\n"));
  EXPECT_THAT(answer, Not(HasSubstr("Cookie")));
  EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\nfine"));
  const std::string request = seen.get_future().get();
  EXPECT_THAT(request, StartsWith("GET /healthz?full=1 HTTP/1.1\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nHost: 127.0.0.1:" + std::to_string(app.port().number) + "\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nUser-Agent: kube-probe/1.34\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nX-One: 1\r\nX-One: 2\r\n"));
  EXPECT_THAT(request, HasSubstr("\r\nConnection: close\r\n"));
  EXPECT_THAT(request, Not(HasSubstr("X-Hop")));
  EXPECT_THAT(request, Not(HasSubstr("TE:")));
}

TEST_F(HttpProbe, AHostOfHttpHeadersStays) {
  std::promise<std::string> seen;
  const Application app([&](const Peer& peer, const std::string& request) {
    seen.set_value(request);
    peer.send(answer_of(""));
  });
  asks(app.port());
  EXPECT_THAT(get("Host: shop.example\r\n"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(seen.get_future().get(), HasSubstr("\r\nHost: shop.example\r\n"));
}

TEST_F(HttpProbe, TheStatusIsTheApplications) {
  for (const char* status : {"204 No Content", "304 Not Modified", "404 Not Found", "500 Oops", "599 x"}) {
    const Application app("HTTP/1.1 " + std::string(status) + "\r\nContent-Length: 0\r\n\r\n");
    asks(app.port());
    EXPECT_THAT(get(), StartsWith("HTTP/1.1 " + std::string(status).substr(0, 3) + " ")) << status;
  }
}

TEST_F(HttpProbe, OldAndChunkedAnswersAndInterimOnes) {
  for (const char* answer :
       {"HTTP/1.0 200 OK\r\n\r\nfine", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nfi\r\n2\r\nne\r\n0\r\n\r\n",
        "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"}) {
    const Application app{std::string(answer)};
    asks(app.port());
    EXPECT_THAT(get(), ::testing::EndsWith("\r\n\r\nfine")) << answer;
  }
}

TEST_F(HttpProbe, ALongBodyIsCut) {
  for (const std::size_t length : {10'240U, 10'241U, 5'000'000U}) {
    const Application app(answer_of(std::string(length, 'x')));
    asks(app.port());
    const std::string answer = get();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
    EXPECT_THAT(answer, HasSubstr("Content-Length: 10240\r\n"));
  }
}

TEST_F(HttpProbe, WhatIsNoAnswerIs502WithTheReason) {
  const std::pair<std::string, const char*> known[] = {
      {"", "without an answer"},
      {"SSH-2.0-x\r\n\r\n", "cannot be read"},
      {"HTTP/1.1 200 OK\r\nA: " + std::string(70'000, 'x') + "\r\n\r\n", "cannot be read"},
      {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "the body of its answer (200)"},
      {"HTTP/1.1 101 Switching Protocols\r\n\r\n", "101"},
      {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
       "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
       "interim"},
  };
  for (const auto& [bytes, why] : known) {
    const Application app(bytes);
    asks(app.port());
    const std::string answer = get();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 502 ")) << bytes.substr(0, 60);
    EXPECT_THAT(answer, HasSubstr(why));
  }
}

TEST_F(HttpProbe, NobodyThereIs503AndAHookIsNotAnswered) {
  asks(Application("").port());
  EXPECT_THAT(get(), HasSubstr("Connection refused"));
  EXPECT_THAT(get(), StartsWith("HTTP/1.1 503 "));
  probe.hook = true;
  EXPECT_EQ(get(), "");
}

TEST_F(HttpProbe, RedirectsToTheSameAddressAreFollowed) {
  std::vector<std::string> seen;
  const Application other(answer_of("there"));
  const Application app([&](const Peer& peer, const std::string& request) {
    seen.push_back(request.substr(0, request.find(" HTTP")));
    const std::string to = seen.size() == 1 ? "../next?q" : "http://127.0.0.1:" + std::to_string(other.port().number) + "/";
    peer.send("HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + to + "\r\n\r\n");
  });
  asks(app.port(), "/a/b/c");
  EXPECT_THAT(get(), ::testing::EndsWith("\r\n\r\nthere"));
  EXPECT_THAT(seen, ::testing::ElementsAre("GET /a/b/c", "GET /a/next?q"));
}

TEST_F(HttpProbe, RedirectsElsewhereAreTheAnswerAndEndlessOnesAnError) {
  const auto redirect = [](const std::string& to) {
    return "HTTP/1.1 307 x\r\nContent-Length: 2\r\n" + (to.empty() ? to : "Location: " + to + "\r\n") + "\r\nhi";
  };
  for (const char* to : {"https://shop.example/login", "http://127.0.0.2/", ""}) {
    const Application app(redirect(to));
    asks(app.port());
    const std::string answer = get();
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 307 ")) << to;
    EXPECT_THAT(answer, ::testing::EndsWith("\r\n\r\nhi"));
  }
  std::atomic<int> asked = 0;
  const Application app([&](const Peer& peer, const std::string&) {
    ++asked;
    peer.send(redirect("/again"));
  });
  asks(app.port());
  EXPECT_THAT(get(), HasSubstr("stopped after 10 redirects"));
  EXPECT_EQ(asked, 10);
  const Application to_the_sidecar(redirect("http://127.0.0.1:" + std::to_string(port.number) + "/"));
  asks(to_the_sidecar.port());
  EXPECT_THAT(get(), HasSubstr("the sidecar's own port"));
}

TEST_F(HttpProbe, ACallerThatHangsUpEndsTheRequest) {
  std::promise<void> asked;
  std::promise<std::string> ended;
  const Application app([&](const Peer& peer, const std::string&) {
    asked.set_value();
    ended.set_value(peer.receive());
  });
  asks(app.port());
  {
    const Peer kubelet = begin();
    ASSERT_EQ(asked.get_future().wait_for(10s), std::future_status::ready);
  }
  EXPECT_EQ(ended.get_future().get(), "");
}

TEST_F(HttpProbe, AFewAtATime) {
  std::mutex mutex;
  std::condition_variable changed;
  bool done = false;
  // Answers nobody until the test says so; the kernel accepts meanwhile.
  const Application app([&](const Peer& peer, const std::string&) {
    std::unique_lock lock(mutex);
    changed.wait_for(lock, 10s, [&] { return done; });
    peer.send(answer_of("late"));
  });
  asks(app.port());
  std::vector<Peer> waiting;
  for (int i = 0; i < 16; ++i) waiting.push_back(begin());
  // The service takes them in turn: the seventeenth is refused.
  const std::string refused = get();
  EXPECT_THAT(refused, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(refused, HasSubstr("too many probes"));
  {
    const std::lock_guard lock(mutex);
    done = true;
  }
  changed.notify_all();
  for (const Peer& peer : waiting) EXPECT_THAT(peer.receive(), ::testing::EndsWith("late"));
  EXPECT_THAT(get(), ::testing::EndsWith("late"));
}

}  // namespace
}  // namespace postern
