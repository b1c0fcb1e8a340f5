#include "proxy/server_unit.hpp"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <csignal>
#include <cstring>
#include <random>

#include "proxy/gateways.hpp"
#include "proxy/identity_source.hpp"

namespace postern {

namespace {

// Changes come in bursts (a directory is copied file by file): they are read when it has been quiet for a moment.
constexpr std::chrono::milliseconds quiet_before_reading{50};
constexpr std::chrono::milliseconds look_again_after{5'000};  // where no event came: a mount that hides them

std::string errno_text() { return std::strerror(errno); }

}  // namespace

Server::Server(Config config, Log& log) : config_(std::move(config)), log_(log) {
  if (config_.workers == 0) config_.workers = std::max(1U, std::thread::hardware_concurrency());
  for (const IpAddress& gateway : default_gateways()) config_.mesh.node_addresses.push_back(gateway);
}

Server::~Server() {
  admin_.reset();
  policy_client_.reset();
  if (wakeup_ >= 0) close(wakeup_);
}

Result<std::unique_ptr<Server>> Server::make(Config config, Log& log) {
  std::unique_ptr<Server> server(new Server(std::move(config), log));
  std::vector<WorkerCounters*> counters;
  std::vector<const WorkerCounters*> read_only;
  for (std::uint32_t i = 0; i < server->config_.workers; ++i) {
    server->counters_.push_back(std::make_unique<WorkerCounters>());
    counters.push_back(server->counters_.back().get());
    read_only.push_back(counters.back());
  }
  auto access_log = AccessLog::open(server->config_, counters);
  if (!access_log) return access_log.error();
  server->access_log_ = std::move(*access_log);
  server->source_ports_ = SourcePorts::of_this_namespace();
  server->wakeup_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  for (std::uint32_t i = 0; i < server->config_.workers; ++i) {
    server->units_.push_back(std::make_unique<Unit>(i, server->config_, *server->access_log_, log, *counters[i]));
    server->units_.back()->worker.source_ports = std::make_unique<SourcePortTurn>(*server->source_ports_, std::random_device{}());
  }
  if (server->config_.tls.resumption) server->sessions_ = std::make_shared<SessionCache>(server->config_.tls.session_cache_entries);
  if (auto started = server->start_sources(); !started) return started.error();
  if (auto bound = server->bind_listeners(); !bound) return bound.error();
  auto admin = AdminServer::start(server->config_, *server, read_only, log);
  if (!admin) return admin.error();
  server->admin_ = std::move(*admin);
  return server;
}

Result<void> Server::start_sources() {
  auto identities = make_identity_source(config_, log_);
  if (!identities) return identities.error();
  identity_source_ = std::move(*identities);
  if (!config_.policy_dir.empty()) {
    auto source = PolicyDirectory::make(config_.policy_dir, {config_.workload.ns, config_.workload.name}, config_.mesh);
    if (!source) return source.error();
    policy_source_ = std::move(*source);
    read_policy();
  }
  if (!config_.control.addresses.empty()) {
    auto client = PolicyClient::make(config_, *this, log_);
    if (!client) return client.error();
    policy_client_ = std::move(*client);
    for (const std::unique_ptr<Unit>& unit : units_) unit->worker.lookups = &policy_client_->lookups();
  }
  if (!config_.identity.federated_bundles.empty()) {
    auto files = FederatedFiles::make(config_.identity.federated_bundles);
    if (!files) return files.error();
    federated_files_ = std::make_unique<FederatedFiles>(*std::move(files));
    read_federated_files();
  }
  if (identity_source_) read_identity();  // now that everybody who needs the key is there
  return {};
}

Result<void> Server::bind_listeners() {
  struct Wanted {
    Direction direction;
    const char* address;
  };
  // Outbound is reachable over loopback only.
  constexpr std::array<Wanted, 4> wanted{Wanted{Direction::inbound, "0.0.0.0"}, Wanted{Direction::inbound, "::"},
                                         Wanted{Direction::outbound, "127.0.0.1"}, Wanted{Direction::outbound, "::1"}};
  for (const std::unique_ptr<Unit>& unit : units_) {
    for (const Wanted& each : wanted) {
      const Port port = each.direction == Direction::inbound ? config_.listen.inbound : config_.listen.outbound;
      const SocketAddress at{*IpAddress::parse(each.address), port};
      const int fd = open_listener(at, config_);
      if (fd < 0 && !at.address.is_v4() && (errno == EAFNOSUPPORT || errno == EADDRNOTAVAIL)) {
        if (unit == units_.front()) log_.info("no_ipv6", {{"address", at.text()}});
        continue;
      }
      if (fd < 0) {
        const char* field = each.direction == Direction::inbound ? "listen.inbound" : "listen.outbound";
        return Error{std::string(field) + ": cannot listen on " + at.text() + ": " + errno_text() + "; is another sidecar running here?",
                     ""};
      }
      unit->listeners.push_back(std::make_unique<Listener>(unit->worker, each.direction, fd));
    }
  }
  return {};
}

int Server::run() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) sigaddset(&signals, signal);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  for (const std::unique_ptr<Unit>& unit : units_) {
    unit->thread = std::thread([&worker = unit->worker] { worker.run(); });
  }
  log_.info("started", {{"workload", config_.workload.ns + "/" + config_.workload.name},
                        {"workers", std::to_string(config_.workers)},
                        {"inbound", std::to_string(config_.listen.inbound.number)},
                        {"outbound", std::to_string(config_.listen.outbound.number)},
                        {"health", std::to_string(admin_->health_port().number)}});
  const Reason reason = supervise();
  stop_workers(reason);
  log_.info("stopped", {{"reason", name_of(reason)}});
  return 0;
}

Reason Server::supervise() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGHUP}) sigaddset(&signals, signal);
  const int signal_fd = signalfd(-1, &signals, SFD_NONBLOCK | SFD_CLOEXEC);
  const auto fd_or_none = [](const auto& source) { return source ? source->fd() : -1; };
  while (true) {
    std::array<pollfd, 5> fds{pollfd{signal_fd, POLLIN, 0}, pollfd{wakeup_, POLLIN, 0}, pollfd{fd_or_none(identity_source_), POLLIN, 0},
                              pollfd{fd_or_none(policy_source_), POLLIN, 0}, pollfd{fd_or_none(federated_files_), POLLIN, 0}};
    auto wait = policy_changed_ ? quiet_before_reading : look_again_after;
    if (draining_) wait = std::min(wait, std::chrono::ceil<std::chrono::milliseconds>(drain_until_ - std::chrono::steady_clock::now()));
    const int ready = poll(fds.data(), fds.size(), static_cast<int>(std::max<std::int64_t>(0, wait.count())));
    if (draining_ && std::chrono::steady_clock::now() >= drain_until_) {
      close(signal_fd);
      return Reason::drained;
    }
    signalfd_siginfo received{};
    while (read(signal_fd, &received, sizeof received) == static_cast<ssize_t>(sizeof received)) {
      if (handle_signal(static_cast<int>(received.ssi_signo))) continue;
      close(signal_fd);
      return Reason::shutdown;
    }
    std::uint64_t count = 0;
    if (read(wakeup_, &count, sizeof count) > 0 && drain_asked_.exchange(false)) begin_drain();
    take_adoptions();
    if (identity_source_ && (fds[2].revents != 0 || ready == 0)) read_identity();
    if (federated_files_ && (fds[4].revents != 0 || ready == 0)) read_federated_files();
    if (policy_source_ && fds[3].revents != 0) {
      policy_source_->drain();
      policy_changed_ = true;
    } else if (policy_source_ && ready == 0) {
      policy_changed_ = false;
      read_policy();
    }
  }
}

// False: end at once.
bool Server::handle_signal(int signal) {
  if (signal == SIGUSR1 || signal == SIGHUP) {
    access_log_->reopen();
    log_.info("access_log_reopened");
    return true;
  }
  if (draining_) return false;
  begin_drain();
  return true;
}

void Server::begin_drain() {
  if (draining_.exchange(true)) return;
  drain_until_ = std::chrono::steady_clock::now() + config_.drain_period;
  log_.info("draining", {{"period_ms", std::to_string(config_.drain_period.count())}});
}

void Server::stop_workers(Reason reason) {
  for (const std::unique_ptr<Unit>& unit : units_) {
    unit->worker.post([unit = unit.get(), reason] {
      unit->listeners.clear();
      unit->worker.shut_down(reason);
    });
  }
  for (const std::unique_ptr<Unit>& unit : units_) unit->thread.join();
}

void Server::read_identity() {
  auto read = identity_source_->poll();
  {
    const std::lock_guard lock(mutex_);
    identity_facts_.source = identity_source_->describe();
    identity_facts_.next_renewal = identity_source_->next_renewal();
  }
  for (const std::string& warning : identity_source_->take_warnings()) log_.warning("identity_warning", {{"what", warning}});
  if (!read) return;
  if (!*read) {
    identity_rejected_.fetch_add(1);
    const std::string text = read->error().text();
    log_.error("identity_rejected",
               {{"error", text}, {"kept", identity() ? "the last good SVID" : "none: no mTLS connection is possible"}});
    const std::lock_guard lock(mutex_);
    identity_facts_.error = text;
    return;
  }
  source_context_ = **read;
  bundles_in_use_.reset();
  renew_bundles();
}

void Server::publish_identity(const X509ContextPtr& next) {
  ++tls_generation_;
  TlsSettings settings;
  settings.groups = config_.tls.groups;
  settings.resumption = config_.tls.resumption;
  std::vector<std::shared_ptr<const TlsContext>> contexts;
  for (std::size_t i = 0; i < units_.size(); ++i) {
    auto context = TlsContext::make(next, settings, sessions_, tls_generation_);
    if (!context) {
      identity_rejected_.fetch_add(1);
      log_.error("identity_rejected", {{"error", context.error().text()}});
      const std::lock_guard lock(mutex_);
      identity_facts_.error = context.error().text();
      return;
    }
    contexts.push_back(std::make_shared<const TlsContext>(std::move(*context)));
  }
  const X509ContextPtr shown = without_key(*next);  // the key lives with those who make connections, and nowhere else
  {
    const std::lock_guard lock(mutex_);
    identity_ = shown;
    identity_facts_.error.clear();
  }
  for (std::size_t i = 0; i < units_.size(); ++i) {
    units_[i]->worker.post([worker = &units_[i]->worker, context = contexts[i], shown] { worker->adopt_identity(context, shown); });
  }
  if (policy_client_) policy_client_->adopt_identity(next);
  std::string domains;
  for (const auto& [domain, bundle] : next->bundles.all()) domains.append(domains.empty() ? "" : ", ").append(domain);
  log_.info("identity_adopted", {{"spiffe_id", next->svid.id.text()}, {"serial", next->svid.serial}, {"trust_domains", domains}});
}

std::shared_ptr<const PolicySnapshot> Server::snapshot() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

X509ContextPtr Server::identity() const {
  const std::lock_guard lock(mutex_);
  return identity_;
}

}  // namespace postern
