#include "proxy/admin.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/use_future.hpp>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <future>
#include <optional>
#include <stdexcept>
#include <thread>

#include "base/document.hpp"
#include "base/http_service.hpp"
#include "base/listening_socket.hpp"
#include "proxy/admin_routes.hpp"

namespace postern {
namespace {

using namespace std::chrono_literals;
using ::testing::HasSubstr;
using ::testing::StartsWith;

class FakeBackend : public AdminBackend {
 public:
  Readiness readiness() override { return {ready, ready ? "" : "no \"policy\" yet"}; }
  bool may_scrape(const IpAddress& source) override { return source == scraper; }
  bool is_probe_port(Port port) override { return port == probe_port; }
  bool is_probe_path(std::string_view path) override { return path == probe_path; }
  bool may_probe(const IpAddress& source, Port) override { return source == node; }
  std::string config_yaml() override { return "workers: 2\n"; }
  std::string connections_json() override {
    if (on_connections) on_connections();
    return "[]";
  }
  std::string allow_list_json() override { return R"({"generation":7})"; }
  std::string identities_json() override { return R"({"svid":null})"; }
  void drain() override { drained = true; }
  void set_log_level(LogLevel to) override { level = to; }
  Facts facts() override { return {}; }

  std::atomic<bool> ready = true;
  IpAddress scraper = *IpAddress::parse("10.0.0.5");
  IpAddress node = *IpAddress::parse("10.0.0.1");
  std::atomic<Port> probe_port{};
  std::string probe_path;  // set before it is asked for
  std::function<void()> on_connections;
  std::atomic<bool> drained = false;
  std::atomic<LogLevel> level = LogLevel::info;
};

// A blocking client of one connection; every wait ends after 10 s.
class Client {
 public:
  explicit Client(Port port, int family = AF_INET) : fd_(::socket(family, SOCK_STREAM, 0)) {
    sockaddr_in v4{.sin_family = AF_INET, .sin_port = htons(port.number), .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
    sockaddr_in6 v6{};
    v6.sin6_family = AF_INET6;
    v6.sin6_port = htons(port.number);
    v6.sin6_addr = in6addr_loopback;
    connected_ = family == AF_INET ? connect(v4) : connect(v6);
  }
  explicit Client(const std::string& path) : fd_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    connected_ = connect(address);
  }
  ~Client() { ::close(fd_); }
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  bool connected() const { return connected_; }
  void send(std::string_view bytes) { ASSERT_EQ(::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL), ssize_t(bytes.size())); }
  // Everything until the server closes; nothing when it did not within 10 s.
  std::optional<std::string> receive() {
    std::string all;
    char chunk[4096];
    while (true) {
      const ssize_t n = ::recv(fd_, chunk, sizeof(chunk), 0);
      if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return std::nullopt;
      if (n <= 0) return all;
      all.append(chunk, static_cast<std::size_t>(n));
    }
  }
  std::string exchange(std::string_view bytes) {
    send(bytes);
    return receive().value_or("timed out");
  }
  std::string get(const std::string& path) { return exchange("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"); }

 private:
  template <class Address>
  bool connect(const Address& address) {
    const timeval limit{.tv_sec = 10, .tv_usec = 0};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
    return ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0;
  }
  int fd_;
  bool connected_ = false;
};

std::string with_body(const std::string& line, const std::string& body) {
  return line + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}
std::string body_of(const std::string& answer) {
  const auto end = answer.find("\r\n\r\n");
  return end == std::string::npos ? "no header end: " + answer : answer.substr(end + 4);
}

class TemporaryFolder {
 public:
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "postern-admin-XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
  std::filesystem::path path;
};

class Admin : public ::testing::Test {
 protected:
  void SetUp() override {
    config.listen.health = Port{0};
    config.listen.admin_socket = socket_path();
    auto started = AdminServer::start(config, backend, {&counters}, log);
    ASSERT_TRUE(started) << started.error().text();
    server = *std::move(started);
  }
  std::string socket_path() const { return (folder.path / "admin.sock").string(); }
  std::string health(const std::string& path) { return Client(server->health_port()).get(path); }
  std::string admin(const std::string& path) { return Client(socket_path()).get(path); }

  TemporaryFolder folder;
  Config config;
  FakeBackend backend;
  WorkerCounters counters;
  Log log{LogLevel::error};
  std::unique_ptr<AdminServer> server;
};

TEST_F(Admin, HealthPortAnswersProbes) {
  EXPECT_THAT(health("/healthz"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(health("/readyz"), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(health("/readyz?verbose=1"), StartsWith("HTTP/1.1 200 "));
  backend.ready = false;
  const std::string answer = health("/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("not ready: no \"policy\" yet"));
  EXPECT_THAT(health("/healthz"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Admin, HealthPortSpeaksIpv6) {
  Client client(server->health_port(), AF_INET6);
  if (!client.connected()) GTEST_SKIP() << "no IPv6 loopback here";
  EXPECT_THAT(client.get("/healthz"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Admin, HealthPortHasNothingElse) {
  for (const char* path : {"/", "/config", "/connections", "/drain", "/healthz/", "*", "/app-probe/", "/app-probe/x", "/app-probe/0"}) {
    EXPECT_THAT(health(path), StartsWith("HTTP/1.1 404 ")) << path;
  }
  EXPECT_THAT(Client(server->health_port()).exchange(with_body("POST /drain", "")), StartsWith("HTTP/1.1 404 "));
  EXPECT_FALSE(backend.drained);
}

TEST_F(Admin, MetricsNeedTheAllowListButForLoopback) {
  counters.streams_recycled.add(3);
  const std::string local = health("/metrics");
  EXPECT_THAT(local, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(local, HasSubstr("Content-Type: text/plain; version=0.0.4"));
  EXPECT_THAT(local, HasSubstr("\npostern_streams_recycled_total 3\n"));

  const AdminSources sources{backend, {&counters}, log};
  const auto status_from = [&](const char* source) {
    HttpRequest request{"GET", "/metrics", "", *IpAddress::parse(source)};
    boost::asio::io_context io;
    HttpProbes probes(log);
    auto answer = boost::asio::co_spawn(io, answer_health(sources, probes, std::move(request)), boost::asio::use_future);
    io.run();
    return answer.get().status;
  };
  EXPECT_EQ(status_from("10.0.0.5"), 200U);
  EXPECT_EQ(status_from("10.0.0.6"), 403U);
  EXPECT_EQ(status_from("::1"), 200U);
}

TEST_F(Admin, MalformedRequestsEndThatConnectionOnly) {
  EXPECT_THAT(Client(server->health_port()).exchange("\x16\x03\x01\x02\x00 hello\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Client(server->health_port()).exchange("GET /healthz HTTP/1.1\r\nA: " + std::string(9'000, 'x')),
              StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Client(server->health_port()).exchange(with_body("PUT /healthz", std::string(5'000, 'x'))), StartsWith("HTTP/1.1 413 "));
  EXPECT_THAT(health("/healthz"), StartsWith("HTTP/1.1 200 "));
}

// A port of the application, listening where it is told.
ListeningSocket application(int family, int backlog = 8) {
  ListeningSocket socket(::socket(family, SOCK_STREAM, 0), family);
  sockaddr_in v4{.sin_family = AF_INET, .sin_port = 0, .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_addr = in6addr_loopback;
  const bool is_v4 = family == AF_INET;
  const auto* address = is_v4 ? reinterpret_cast<const sockaddr*>(&v4) : reinterpret_cast<const sockaddr*>(&v6);
  if (::bind(socket.fd(), address, is_v4 ? sizeof(v4) : sizeof(v6)) == 0) ::listen(socket.fd(), backlog);
  return socket;
}
std::string probe_path(Port port) { return "/app-probe/" + std::to_string(port.number); }

TEST_F(Admin, AppProbeConnectsToTheApplication) {
  std::optional<ListeningSocket> app(application(AF_INET));
  const Port port = app->port();
  EXPECT_THAT(health(probe_path(port)), StartsWith("HTTP/1.1 404 ")) << "not a probe's port: not to be scanned";
  backend.probe_port = port;
  EXPECT_THAT(health(probe_path(port)), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(health("/app-probe/0" + std::to_string(port.number)), StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(health(probe_path(port) + "x"), StartsWith("HTTP/1.1 404 "));
  app.reset();
  const std::string answer = health(probe_path(port));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_THAT(answer, HasSubstr("127.0.0.1:" + std::to_string(port.number) + ": Connection refused"));
}

// Nobody comes by the sidecar to what the pod's own probes do not ask.
TEST_F(Admin, HttpProbesAreForTheNodeAndForWhatTheSpecNames) {
  backend.probe_path = "/app-probe/http/1/healthz?full=1";
  const AdminSources sources{backend, {&counters}, log};
  const auto status_of = [&](const char* source, const std::string& target) {
    HttpRequest request{"GET", target.substr(0, target.find('?')), "", *IpAddress::parse(source)};
    request.target = target;
    request.local = {*IpAddress::parse("127.0.0.1"), server->health_port()};
    request.caller = std::make_shared<HttpCaller>();
    boost::asio::io_context io;
    HttpProbes probes(log);
    auto answer = boost::asio::co_spawn(io, answer_health(sources, probes, std::move(request)), boost::asio::use_future);
    io.run();
    return answer.get().status;
  };
  EXPECT_EQ(status_of("10.0.0.1", backend.probe_path), 503U) << "asked for; nobody listens at port 1";
  EXPECT_EQ(status_of("127.0.0.1", backend.probe_path), 503U);
  EXPECT_EQ(status_of("10.0.0.2", backend.probe_path), 403U);
  for (const char* target :
       {"/app-probe/http/1/healthz", "/app-probe/http/1/healthz?full=1&more", "/app-probe/http/1/healthz?full=2",
        "/app-probe/https/1/healthz?full=1", "/app-probe/hook/http/1/healthz?full=1", "/app-probe/http/2/healthz?full=1",
        "/app-probe/http/1/%68ealthz?full=1", "/app-probe/http/1/./healthz?full=1"}) {
    EXPECT_EQ(status_of("10.0.0.1", target), 404U) << target;
    EXPECT_EQ(status_of("10.0.0.2", target), 403U) << target << ": what there is, is not said";
  }
}

TEST_F(Admin, AppProbeTriesIpv6Too) {
  const ListeningSocket app = application(AF_INET6);
  if (app.port() == Port{0}) GTEST_SKIP() << "no IPv6 loopback here";
  backend.probe_port = app.port();
  EXPECT_THAT(health(probe_path(app.port())), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Admin, AppProbeGivesUpAfterASecond) {
  const ListeningSocket app = application(AF_INET, 0);  // a backlog of one
  std::list<ListeningSocket> waiting;
  sockaddr_in address{.sin_family = AF_INET, .sin_port = htons(app.port().number), .sin_addr = {htonl(INADDR_LOOPBACK)}, .sin_zero = {}};
  for (int i = 0; i < 4; ++i) {
    waiting.emplace_back(::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), AF_INET);
    ::connect(waiting.back().fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  }
  backend.probe_port = app.port();
  const auto before = std::chrono::steady_clock::now();
  EXPECT_THAT(health(probe_path(app.port())), StartsWith("HTTP/1.1 503 "));
  const auto took = std::chrono::steady_clock::now() - before;
  EXPECT_GE(took, 900ms);
  EXPECT_LT(took, 4s);
}

TEST_F(Admin, SocketIsForItsOwnerAndShowsTheState) {
  struct stat status {};
  ASSERT_EQ(::stat(socket_path().c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777U, 0600U);
  EXPECT_EQ(body_of(admin("/config")), "workers: 2\n");
  EXPECT_EQ(body_of(admin("/connections")), "[]");
  EXPECT_EQ(body_of(admin("/allow-list")), R"({"generation":7})");
  EXPECT_EQ(body_of(admin("/identities")), R"({"svid":null})");
  EXPECT_THAT(admin("/connections"), HasSubstr("Content-Type: application/json"));
  EXPECT_THAT(body_of(admin("/metrics")), HasSubstr("postern_policy_generation 0"));
  EXPECT_EQ(body_of(admin("/readyz")), R"({"ready":true,"why":""})");
  backend.ready = false;
  const std::string answer = admin("/readyz");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 503 "));
  EXPECT_EQ(body_of(answer), R"({"ready":false,"why":"no \"policy\" yet"})");
}

TEST_F(Admin, SocketDrainsAndSetsTheLogLevel) {
  EXPECT_THAT(Client(socket_path()).exchange(with_body("POST /drain", "")), StartsWith("HTTP/1.1 200 "));
  EXPECT_TRUE(backend.drained);
  const std::string answer = Client(socket_path()).exchange(with_body("PUT /log-level", R"({"level": "warning"})"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 "));
  EXPECT_EQ(body_of(answer), R"({"level":"warning"})");
  EXPECT_EQ(backend.level, LogLevel::warning);
}

TEST_F(Admin, SocketErrorsAreJson) {
  for (const char* body : {"", "debug", "{}", R"({"level":"loud"})", R"({"level":1})", R"({"level":"debug","x":1})", "[\"debug\"]"}) {
    const std::string answer = Client(socket_path()).exchange(with_body("PUT /log-level", body));
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 400 ")) << body;
    const auto json = parse_json(body_of(answer), "answer");
    ASSERT_TRUE(json) << answer;
    ASSERT_NE(json->root.find("error"), nullptr) << answer;
    EXPECT_THAT(json->root.find("error")->scalar, HasSubstr("one of debug, info, warning, error"));
  }
  EXPECT_EQ(backend.level, LogLevel::info);
  EXPECT_THAT(admin("/drain"), StartsWith("HTTP/1.1 405 "));
  EXPECT_FALSE(backend.drained);
  const std::string unknown = admin("/nothing");
  EXPECT_THAT(unknown, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(body_of(unknown), StartsWith(R"({"error":"no such path; expected one of GET /config)"));
}

TEST_F(Admin, SlowAnswersOnTheSocketDoNotHoldUpProbes) {
  std::promise<void> probed;
  auto released = probed.get_future();
  backend.on_connections = [&] { EXPECT_EQ(released.wait_for(5s), std::future_status::ready); };
  Client slow(socket_path());
  slow.send("GET /connections HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(health("/healthz"), StartsWith("HTTP/1.1 200 "));
  probed.set_value();
  EXPECT_THAT(slow.receive().value_or("timed out"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Admin, BackendFailureIsAnAnswer) {
  backend.on_connections = [] { throw std::runtime_error("a bug"); };
  const std::string answer = admin("/connections");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(answer, ::testing::Not(HasSubstr("a bug")));
  EXPECT_THAT(admin("/config"), StartsWith("HTTP/1.1 200 "));
}

TEST_F(Admin, SocketFileGoesWithTheServer) {
  ASSERT_TRUE(std::filesystem::exists(socket_path()));
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(socket_path()));
}

TEST_F(Admin, AnothersSocketFileStays) {
  std::filesystem::rename(socket_path(), folder.path / "moved");
  std::ofstream(socket_path()) << "mine";
  server.reset();
  EXPECT_TRUE(std::filesystem::exists(socket_path()));
}

TEST_F(Admin, ServedSocketAndTakenPortAreErrors) {
  Config second = config;
  auto started = AdminServer::start(second, backend, {&counters}, log);
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().text(), HasSubstr("another process serves this socket"));
  EXPECT_THAT(admin("/config"), StartsWith("HTTP/1.1 200 ")) << "the first one goes on";

  second.listen.admin_socket.clear();
  second.listen.health = server->health_port();
  started = AdminServer::start(second, backend, {&counters}, log);
  ASSERT_FALSE(started);
  EXPECT_THAT(started.error().text(), HasSubstr("listen.health: port " + std::to_string(second.listen.health.number)));
}

TEST(ListenOnPath, ReplacesAStaleSocketButNoOtherFile) {
  const TemporaryFolder folder;
  const std::string path = (folder.path / "admin.sock").string();
  ASSERT_TRUE(listen_on_path(path, "listen.adminSocket"));  // closed at once; the file stays
  ASSERT_TRUE(std::filesystem::exists(path));
  EXPECT_TRUE(listen_on_path(path, "listen.adminSocket"));

  const std::string file = (folder.path / "notes").string();
  std::ofstream(file) << "precious";
  const auto refused = listen_on_path(file, "listen.adminSocket");
  ASSERT_FALSE(refused);
  EXPECT_THAT(refused.error().text(), HasSubstr("not a socket"));
  EXPECT_TRUE(std::filesystem::exists(file));

  const auto no_folder = listen_on_path((folder.path / "none" / "admin.sock").string(), "listen.adminSocket");
  ASSERT_FALSE(no_folder);
  EXPECT_THAT(no_folder.error().text(), HasSubstr("create its folder first"));
}

// Serves "hello" under the limits that a test gives.
struct TightService {
  explicit TightService(HttpLimits limits) {
    auto socket = listen_on_port(Port{0}, "listen.health");
    if (!socket) throw std::runtime_error(socket.error().text());
    port = socket->port();
    auto hello = [](HttpRequest) -> boost::asio::awaitable<HttpAnswer> { co_return HttpAnswer{200, {}, "hello"}; };
    service.emplace("test", *std::move(socket), hello, log, limits);
  }
  Log log{LogLevel::error};
  Port port;
  std::optional<HttpService> service;
};

TEST(HttpService, SlowRequestIsClosedAtTheDeadline) {
  const TightService tight({.deadline = 100ms});
  Client silent(tight.port);
  Client slow(tight.port);
  slow.send("GET / HTTP/1.1\r\nHo");
  EXPECT_EQ(silent.receive(), "");
  EXPECT_EQ(slow.receive(), "");
  EXPECT_EQ(body_of(Client(tight.port).get("/")), "hello");
}

TEST(HttpService, OneConnectionTooManyClosesTheOldest) {
  const TightService tight({.connections = 2, .deadline = 60s});
  Client oldest(tight.port);
  Client younger(tight.port);
  EXPECT_EQ(body_of(Client(tight.port).get("/")), "hello");
  EXPECT_EQ(oldest.receive(), "");
  EXPECT_EQ(body_of(younger.get("/")), "hello");
}

std::ptrdiff_t open_descriptors() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/fd"), std::filesystem::directory_iterator());
}

// Whoever has its answer and does not hang up is hung up on.
TEST(HttpService, AnAnsweredConnectionIsNotKept) {
  const TightService tight({});
  const auto before = open_descriptors();
  Client idle(tight.port);
  EXPECT_EQ(body_of(idle.get("/")), "hello");
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (open_descriptors() > before + 1 && std::chrono::steady_clock::now() < deadline) std::this_thread::sleep_for(10ms);
  EXPECT_EQ(open_descriptors(), before + 1) << "the client's own end";
}

TEST(HttpService, EndsWithConnectionsOpen) {
  std::optional<TightService> tight(std::in_place, HttpLimits{.deadline = 60s});
  Client idle(tight->port);
  EXPECT_EQ(body_of(Client(tight->port).get("/")), "hello");
  tight.reset();
  EXPECT_EQ(idle.receive(), "");
}

}  // namespace
}  // namespace postern
