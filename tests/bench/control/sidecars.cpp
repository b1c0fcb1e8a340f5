// postern-bench-sidecars: many sidecars in one process, as the control plane sees them: each a real stream over mTLS with an SVID of its
// own, that acknowledges every update at once. It enforces nothing; what it measures is the control plane.
#include <sys/resource.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/websocket.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "authz/stream_messages.hpp"
#include "certs/tls_context.hpp"
#include "certs/tls_socket.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
namespace websocket = boost::beast::websocket;
using Stream = websocket::stream<TlsSocket>;

constexpr const char* help =
    "usage: postern-bench-sidecars --control ADDRESS:PORT[,...] --workloads FILE --ca CERTIFICATE --ca-key KEY --trust-domain NAME\n"
    "\n"
    "Opens one stream for each line of FILE (\"namespace pod uid service-account\"), once told to. Reads commands from standard\n"
    "input and prints one line for each thing that happens (times: CLOCK_MONOTONIC, nanoseconds):\n"
    "\n"
    "  connect N     streams for the next N workloads      ->  connected N TIME  (each has had its first update)\n"
    "  reconnect     ends every stream and opens it again  ->  connected N TIME\n"
    "  disconnect    ends every stream\n"
    "  use N         the address, from 0, that streams opened from now on go to\n"
    "  forget        forgets every TLS session: full handshakes from now on\n"
    "  stats         ->  stats STREAMS UPDATES BYTES RESOURCES RESUMED FULL HELD  (HELD: bytes of the bodies that all hold now)\n"
    "  quit\n"
    "and, for each update after the first: update WORKLOAD TIME BYTES RESOURCES REMOVED\n";

std::int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string text_of_file(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

struct Totals {
  std::size_t in_step = 0;
  std::uint64_t updates = 0;
  std::uint64_t bytes = 0;
  std::uint64_t resources = 0;
  std::uint64_t resumed = 0;
  std::uint64_t full = 0;
};

class Sidecars {
 public:
  Sidecars(asio::io_context& io, std::vector<asio::ip::tcp::endpoint> control, std::string trust_domain, test::TestAuthority authority)
      : io_(io), control_(std::move(control)), trust_domain_(std::move(trust_domain)), authority_(std::move(authority)) {}

  void add(const std::string& ns, const std::string& pod, const std::string& uid, const std::string& account) {
    workloads_.push_back({ns, pod, uid, account});
  }

  void connect(std::size_t count) {
    for (; count > 0 && sidecars_.size() < workloads_.size(); --count) {
      sidecars_.push_back(std::make_unique<Sidecar>(*this, sidecars_.size()));
      start(*sidecars_.back());
    }
  }

  void disconnect() {
    totals_.in_step = 0;
    for (const auto& sidecar : sidecars_) sidecar->end();
  }
  void use(std::size_t replica) { replica_ = replica % control_.size(); }
  void forget() { sessions_->clear(); }

  void reconnect() {
    disconnect();
    for (const auto& sidecar : sidecars_) start(*sidecar);
  }

  void print_stats() const {
    std::size_t held = 0;
    for (const auto& sidecar : sidecars_) held += sidecar->held;
    std::printf("stats %zu %lu %lu %lu %lu %lu %zu\n", totals_.in_step, totals_.updates, totals_.bytes, totals_.resources, totals_.resumed,
                totals_.full, held);
  }

 private:
  struct Workload {
    std::string ns, pod, uid, account;
  };

  struct Sidecar {
    Sidecar(Sidecars& all, std::size_t index) : all(all), index(index), tls(context(all, index)) {}
    static TlsContext context(Sidecars& all, std::size_t index) {
      const Workload& w = all.workloads_[index];
      const std::string id = "spiffe://" + all.trust_domain_ + "/ns/" + w.ns + "/sa/" + w.account + "/pod/" + w.pod + "/" + w.uid;
      TlsSettings settings;
      settings.alpn = control_alpn;
      settings.groups = "X25519";
      settings.tcp_end_is_enough = true;
      return TlsContext::make(test::make_context(all.authority_.issue(id), all.authority_), settings, all.sessions_, 1).value();
    }
    void end() {
      ++generation;
      if (stream) boost::beast::get_lowest_layer(*stream).close();
    }

    Sidecars& all;
    std::size_t index;
    TlsContext tls;
    std::shared_ptr<Stream> stream;
    std::uint64_t generation = 0;  // of its stream
    Mark mark;
    std::map<std::string, std::string> have;
    std::map<std::string, std::size_t> sizes;  // of the bodies
    std::size_t held = 0;                      // their sum
    bool in_step = false;
  };

  void start(Sidecar& sidecar) {
    sidecar.in_step = false;
    asio::co_spawn(io_, keep(sidecar, ++sidecar.generation), asio::detached);
  }

  // One stream after another until it is told to end: as a sidecar does, with a back-off.
  asio::awaitable<void> keep(Sidecar& sidecar, std::uint64_t generation) {
    std::size_t attempt = 0;
    while (sidecar.generation == generation) {
      const std::string error = co_await run(sidecar, generation, control_[replica_]);
      if (sidecar.generation != generation) co_return;
      if (sidecar.in_step) --totals_.in_step;
      sidecar.in_step = false;
      if (++attempt < 4) std::fprintf(stderr, "%zu: %s\n", sidecar.index, error.c_str());
      asio::steady_timer pause(io_, std::chrono::milliseconds(100 + (sidecar.index * 7919 + attempt * 104729) % 900));
      co_await pause.async_wait(asio::use_awaitable);
    }
  }

  asio::awaitable<std::string> run(Sidecar& sidecar, std::uint64_t generation, asio::ip::tcp::endpoint control) {
    boost::system::error_code error;
    asio::ip::tcp::socket socket(io_);
    co_await socket.async_connect(control, asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return "connect: " + error.message();
    // As a sidecar does: the session of one replica is offered to all.
    TlsSocket tls(std::move(socket), sidecar.tls.new_client(SocketAddress{}, true));
    const Result<void> handshake = co_await tls.handshake();
    if (!handshake) co_return "handshake: " + handshake.error().text();
    if (sidecar.generation != generation) co_return "ended";
    ++(TlsContext::facts(tls.ssl()).resumed ? totals_.resumed : totals_.full);
    sidecar.stream = std::make_shared<Stream>(std::move(tls));
    const std::shared_ptr<Stream> stream = sidecar.stream;
    stream->read_message_max(control_message_bytes);
    co_await stream->async_handshake("postern-control", std::string(stream_path), asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return "upgrade: " + error.message();
    Hello hello;
    hello.version = "bench";
    hello.mark = sidecar.mark;
    hello.have = sidecar.have;
    std::string out = encode(SidecarMessage(std::move(hello)));
    co_await stream->async_write(asio::buffer(out), asio::redirect_error(asio::use_awaitable, error));
    while (!error && sidecar.generation == generation) {
      boost::beast::flat_buffer in;
      co_await stream->async_read(in, asio::redirect_error(asio::use_awaitable, error));
      if (error || sidecar.generation != generation) break;
      const std::string_view text(static_cast<const char*>(in.data().data()), in.size());
      const Result<ControlMessage> message = decode_control_message(text);
      if (!message) co_return "message: " + message.error().text();
      const auto* update = std::get_if<Update>(&*message);
      if (update == nullptr) continue;
      take(sidecar, *update, text.size());
      out = encode(SidecarMessage(Ack{update->nonce}));
      co_await stream->async_write(asio::buffer(out), asio::redirect_error(asio::use_awaitable, error));
    }
    co_return "stream: " + error.message();
  }

  void take(Sidecar& sidecar, const Update& update, std::size_t bytes) {
    sidecar.mark.advance_to(update.mark);
    for (const ResourcePtr& resource : update.resources) {
      sidecar.have[resource->name] = resource->hash;
      std::size_t& size = sidecar.sizes[resource->name];
      sidecar.held += resource->body.size() - size;
      size = resource->body.size();
    }
    for (const std::string& name : update.removed) {
      sidecar.have.erase(name);
      sidecar.held -= sidecar.sizes[name];
      sidecar.sizes.erase(name);
    }
    ++totals_.updates;
    totals_.bytes += bytes;
    totals_.resources += update.resources.size();
    if (sidecar.in_step) {
      std::printf("update %zu %ld %zu %zu %zu\n", sidecar.index, now_ns(), bytes, update.resources.size(), update.removed.size());
      return;
    }
    sidecar.in_step = true;
    if (++totals_.in_step == sidecars_.size()) std::printf("connected %zu %ld\n", totals_.in_step, now_ns());
  }

  asio::io_context& io_;
  std::vector<asio::ip::tcp::endpoint> control_;
  std::size_t replica_ = 0;
  std::string trust_domain_;
  test::TestAuthority authority_;
  std::shared_ptr<SessionCache> sessions_ = std::make_shared<SessionCache>(16, 20'000);
  std::vector<Workload> workloads_;
  std::vector<std::unique_ptr<Sidecar>> sidecars_;
  Totals totals_;
};

asio::awaitable<void> obey(asio::io_context& io, Sidecars& sidecars) {
  asio::posix::stream_descriptor input(io, 0);
  asio::streambuf buffer;
  boost::system::error_code error;
  while (true) {
    co_await asio::async_read_until(input, buffer, '\n', asio::redirect_error(asio::use_awaitable, error));
    if (error) break;
    std::istream stream(&buffer);
    std::string line;
    std::getline(stream, line);
    std::istringstream words(line);
    std::string command;
    std::size_t count = 0;
    words >> command >> count;
    if (command == "connect") {
      sidecars.connect(count);
    } else if (command == "reconnect") {
      sidecars.reconnect();
    } else if (command == "disconnect") {
      sidecars.disconnect();
    } else if (command == "use") {
      sidecars.use(count);
    } else if (command == "forget") {
      sidecars.forget();
    } else if (command == "stats") {
      sidecars.print_stats();
    } else if (command == "quit") {
      break;
    } else {
      std::fprintf(stderr, "unknown command: %s\n%s", line.c_str(), help);
    }
  }
  io.stop();
}

int run(const std::map<std::string, std::string>& options) {
  asio::io_context io(1);
  std::vector<asio::ip::tcp::endpoint> control;
  std::istringstream addresses(options.at("--control"));
  for (std::string address; std::getline(addresses, address, ',');) {
    const std::size_t colon = address.rfind(':');
    if (colon == std::string::npos) throw std::runtime_error("--control: " + address + ": ADDRESS:PORT is expected");
    control.emplace_back(asio::ip::make_address(address.substr(0, colon)),
                         static_cast<std::uint16_t>(std::stoul(address.substr(colon + 1))));
  }
  Sidecars sidecars(io, std::move(control), options.at("--trust-domain"),
                    test::TestAuthority::load(text_of_file(options.at("--ca")), text_of_file(options.at("--ca-key"))));
  std::istringstream workloads(text_of_file(options.at("--workloads")));
  std::string ns, pod, uid, account;
  while (workloads >> ns >> pod >> uid >> account) sidecars.add(ns, pod, uid, account);
  asio::co_spawn(io, obey(io, sidecars), asio::detached);
  io.run();
  return 0;
}

}  // namespace
}  // namespace postern

int main(int argc, char** argv) {
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  std::signal(SIGPIPE, SIG_IGN);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
  std::map<std::string, std::string> options;
  for (int i = 1; i + 1 < argc; i += 2) options[argv[i]] = argv[i + 1];
  for (const char* needed : {"--control", "--workloads", "--ca", "--ca-key", "--trust-domain"}) {
    if (!options.contains(needed)) return std::fputs(postern::help, stderr) < 0 ? 1 : 2;
  }
  try {
    return postern::run(options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "postern-bench-sidecars: %s\n", error.what());
    return 1;
  }
}
