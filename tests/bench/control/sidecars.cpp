// postern-bench-sidecars: many sidecars in one process, as the control plane sees them: each a sidecar's own ControlStream, with its
// deadlines, pings and back-off, and an SVID of its own, that acknowledges every update at once. It enforces nothing; what it measures is
// the control plane.
#include <sys/resource.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/streambuf.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "authz/stream_messages.hpp"
#include "certs/tls_context.hpp"
#include "proxy/control_stream.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

// As a sidecar's PolicyClient: the same ControlStream with its deadlines, the same pauses between two streams, with jitter.
constexpr milliseconds first_back_off{200};
constexpr milliseconds longest_back_off{10'000};
constexpr std::chrono::seconds first_update_within{30};

constexpr const char* help =
    "usage: postern-bench-sidecars --control ADDRESS:PORT[,...] --workloads FILE --ca CERTIFICATE --ca-key KEY --trust-domain NAME\n"
    "\n"
    "Opens one stream for each line of FILE (\"namespace pod uid service-account\"), once told to. Reads commands from standard\n"
    "input and prints one line for each thing that happens (times: CLOCK_MONOTONIC, nanoseconds):\n"
    "\n"
    "  connect N     streams for the next N workloads      ->  connected N TIME  (each has had its first update)\n"
    "  reconnect     ends every stream: each sidecar opens another, as after any end  ->  connected N TIME\n"
    "  use N         the address, from 0, that streams opened from now on go to\n"
    "  forget        forgets every TLS session: full handshakes from now on\n"
    "  stats         ->  stats STREAMS UPDATES BYTES RESOURCES RESUMED FULL HELD FAILED  (HELD: bytes of the bodies that all hold now;\n"
    "                    FAILED: attempts that ended before an update)\n"
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
  std::uint64_t failed = 0;
};

class Sidecars {
 public:
  Sidecars(asio::io_context& io, std::vector<asio::ip::tcp::endpoint> control, std::string trust_domain, test::TestAuthority authority)
      : io_(io),
        control_(std::move(control)),
        trust_domain_(std::move(trust_domain)),
        control_id_(SpiffeId::parse("spiffe://" + trust_domain_ + "/postern/control").value()),
        authority_(std::move(authority)) {}

  void add(const std::string& ns, const std::string& pod, const std::string& uid, const std::string& account) {
    workloads_.push_back({ns, pod, uid, account});
  }

  void connect(std::size_t count) {
    for (; count > 0 && sidecars_.size() < workloads_.size(); --count) {
      sidecars_.push_back(std::make_unique<Sidecar>(*this, sidecars_.size()));
      asio::co_spawn(io_, keep(*sidecars_.back()), asio::detached);
    }
  }

  void use(std::size_t replica) { replica_ = replica % control_.size(); }
  void forget() { sessions_->clear(); }

  void reconnect() {
    totals_.in_step = 0;
    for (const auto& sidecar : sidecars_) {
      sidecar->in_step = false;
      if (sidecar->stream) sidecar->stream->close();
    }
  }

  void print_stats() const {
    std::size_t held = 0;
    for (const auto& sidecar : sidecars_) held += sidecar->held;
    std::printf("stats %zu %lu %lu %lu %lu %lu %zu %lu\n", totals_.in_step, totals_.updates, totals_.bytes, totals_.resources,
                totals_.resumed, totals_.full, held, totals_.failed);
  }

 private:
  struct Workload {
    std::string ns, pod, uid, account;
  };

  struct Sidecar {
    Sidecar(Sidecars& all, std::size_t index) : index(index), tls(context(all, index)), random(static_cast<unsigned>(index)) {}
    static std::shared_ptr<const TlsContext> context(Sidecars& all, std::size_t index) {
      const Workload& w = all.workloads_[index];
      const std::string id = "spiffe://" + all.trust_domain_ + "/ns/" + w.ns + "/sa/" + w.account + "/pod/" + w.pod + "/" + w.uid;
      TlsSettings settings;
      settings.alpn = control_alpn;
      settings.groups = "X25519";
      settings.tcp_end_is_enough = true;
      return std::make_shared<const TlsContext>(
          TlsContext::make(test::make_context(all.authority_.issue(id), all.authority_), settings, all.sessions_, 1).value());
    }

    std::size_t index;
    std::shared_ptr<const TlsContext> tls;
    std::shared_ptr<ControlStream> stream;
    std::minstd_rand random;
    Mark mark;
    std::map<std::string, std::string> have;
    std::map<std::string, std::size_t> sizes;  // of the bodies
    std::size_t held = 0;                      // their sum
    std::uint64_t updates = 0;
    bool in_step = false;
  };

  // One stream after another, with a sidecar's back-off between them.
  asio::awaitable<void> keep(Sidecar& sidecar) {
    milliseconds back_off = first_back_off;
    while (true) {
      const std::uint64_t before = sidecar.updates;
      const std::string error = co_await run(sidecar, control_[replica_]);
      const bool had_one = sidecar.updates > before;
      sidecar.stream.reset();
      if (sidecar.in_step) --totals_.in_step;
      sidecar.in_step = false;
      if (!had_one) {
        ++totals_.failed;
        if (errors_.insert(error).second) std::fprintf(stderr, "%s (sidecar %zu; said once)\n", error.c_str(), sidecar.index);
      } else {
        back_off = first_back_off;
      }
      std::uniform_int_distribution<std::int64_t> jitter(had_one ? 0 : back_off.count() / 2, back_off.count());
      asio::steady_timer pause(io_, milliseconds(jitter(sidecar.random)));
      co_await pause.async_wait(asio::use_awaitable);
      if (!had_one) back_off = std::min(longest_back_off, back_off * 2);
    }
  }

  asio::awaitable<std::string> run(Sidecar& sidecar, asio::ip::tcp::endpoint control) {
    const ControlStream::Timeouts timeouts;
    auto connected = co_await ControlStream::connect(control, sidecar.tls, control_id_, timeouts);
    if (!connected) co_return connected.error().text();
    const std::shared_ptr<ControlStream> stream = *connected;
    sidecar.stream = stream;
    ++(stream->resumed() ? totals_.resumed : totals_.full);
    Hello hello;
    hello.version = "bench";
    hello.mark = sidecar.mark;
    hello.have = sidecar.have;
    stream->send(encode(SidecarMessage(std::move(hello))));
    asio::steady_timer first_update(io_, first_update_within);
    const std::weak_ptr<ControlStream> weak = stream;
    const auto give_up = [weak](const boost::system::error_code& error) {
      if (const auto late = weak.lock(); late && !error) late->close();
    };
    first_update.async_wait(give_up);
    while (true) {
      const Result<std::string> text = co_await stream->read();
      if (!text) co_return text.error().text();
      const Result<ControlMessage> message = decode_control_message(*text);
      if (!message) co_return "message: " + message.error().text();
      const auto* update = std::get_if<Update>(&*message);
      if (update == nullptr) continue;
      first_update.cancel();
      take(sidecar, *update, text->size());
      stream->send(encode(SidecarMessage(Ack{update->nonce})));
    }
  }

  void take(Sidecar& sidecar, const Update& update, std::size_t bytes) {
    sidecar.mark.advance_to(update.mark);
    for (const ResourcePtr& resource : update.resources) {
      sidecar.have[resource->name] = resource->hash;
      std::size_t& size = sidecar.sizes[resource->name];
      sidecar.held += resource->body.size() - size;
      size = resource->body.size();
    }
    for (const ResourceDelta& delta : update.deltas) {
      sidecar.have[delta.name] = delta.hash;
      for (const TextEdit& edit : delta.edits) {
        sidecar.held += edit.inserted.size() - edit.removed;
        sidecar.sizes[delta.name] += edit.inserted.size() - edit.removed;
      }
    }
    for (const std::string& name : update.removed) {
      sidecar.have.erase(name);
      sidecar.held -= sidecar.sizes[name];
      sidecar.sizes.erase(name);
    }
    ++sidecar.updates;
    ++totals_.updates;
    totals_.bytes += bytes;
    totals_.resources += update.resources.size() + update.deltas.size();
    if (sidecar.in_step) {
      std::printf("update %zu %ld %zu %zu %zu\n", sidecar.index, now_ns(), bytes, update.resources.size() + update.deltas.size(),
                  update.removed.size());
      return;
    }
    sidecar.in_step = true;
    if (++totals_.in_step == sidecars_.size()) std::printf("connected %zu %ld\n", totals_.in_step, now_ns());
  }

  asio::io_context& io_;
  std::vector<asio::ip::tcp::endpoint> control_;
  std::size_t replica_ = 0;
  std::string trust_domain_;
  const SpiffeId control_id_;
  test::TestAuthority authority_;
  std::shared_ptr<SessionCache> sessions_ = std::make_shared<SessionCache>(16, 20'000);
  std::vector<Workload> workloads_;
  std::vector<std::unique_ptr<Sidecar>> sidecars_;
  Totals totals_;
  std::set<std::string> errors_;  // that have been said
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
