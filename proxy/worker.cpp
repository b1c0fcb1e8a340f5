#include "proxy/worker.hpp"

#include <pthread.h>

#include <algorithm>

namespace postern {

Worker::Worker(std::size_t index, const Config& config, AccessLog& access_log, Log& log, WorkerCounters& counters)
    : index(index),
      config(config),
      access_log(access_log),
      log(log),
      counters(counters),
      loop(counters.loop_delay),
      live(loop),
      pool(loop, config, counters),
      closing_(loop, [this] { loop.stop(); }),
      expired_(loop, [this] {
        live.for_each([](LiveConnection& connection) {
          if (connection.facts.identity) connection.revoke(Reason::svid_missing);
        });
      }) {}

Worker::~Worker() = default;

void Worker::run() {
  pthread_setname_np(pthread_self(), ("worker " + std::to_string(index)).c_str());
  loop.run();
}

void Worker::adopt_policy(std::shared_ptr<const PolicySnapshot> next, std::function<void()> enforced) {
  pool.recheck(snapshot.get(), *next);
  const bool self_changed = snapshot == nullptr || !(snapshot->self() == next->self());
  idle_inbound.for_each([&](IdleInbound& idle) {
    const Workload* was = snapshot == nullptr ? nullptr : snapshot->identify(idle.facts.identity->id, idle.facts.peer_address).workload;
    const Judgement judgement = judge(next.get(), idle.facts);
    if (self_changed || !judgement.allowed || was == nullptr || !(*was == *judgement.peer)) idle.close();
  });
  snapshot = next;
  counters.policy_generation.set(snapshot->generation());
  live.recheck(std::move(next), std::move(enforced));
}

void Worker::adopt_identity(std::shared_ptr<const TlsContext> context, std::shared_ptr<const X509Context> next) {
  if (tls) tls->retire();  // handshakes that are under way have the key that they began with
  tls = std::move(context);
  identity = std::move(next);
  pool.clear();
  idle_inbound.for_each([](IdleInbound& idle) { idle.close(); });
  live.for_each([this](LiveConnection& connection) {
    if (connection.facts.identity && !trusts(*connection.facts.identity)) connection.revoke(Reason::identity_rejected);
  });
  if (config.limits.max_connection_age.count() == 0) return;
  expired_.arm(identity->svid.not_after - std::chrono::system_clock::now() + config.limits.max_connection_age);
}

bool Worker::trusts(const PeerIdentity& peer) const {
  return identity != nullptr && identity->bundles.find(peer.id.trust_domain()) != nullptr;
}

void Worker::shut_down(Reason reason) {
  shutting_down_ = true;
  pool.clear();
  idle_inbound.for_each([](IdleInbound& idle) { idle.close(); });
  live.revoke_all(reason);
  closing_.arm(std::chrono::seconds(2));  // for those that linger
  if (tasks_ == 0) loop.stop();
}

void Worker::task_ended() {
  if (--tasks_ == 0 && shutting_down_) loop.stop();
}

std::uint32_t Worker::share(std::uint32_t whole) const { return std::max(1U, whole / std::max(1U, config.workers)); }

Reason Worker::may_admit(Direction direction, const IpAddress& source) const {
  if (connections_ >= share(config.limits.max_connections)) return Reason::too_many_connections;
  if (direction == Direction::outbound) return Reason::finished;
  if (handshakes >= share(config.limits.max_handshakes)) return Reason::too_many_handshakes;
  const std::uint32_t per_source = config.limits.max_connections_per_source;
  if (per_source == 0) return Reason::finished;
  const auto at = per_source_.find(source);
  return at != per_source_.end() && at->second >= share(per_source) ? Reason::too_many_from_source : Reason::finished;
}

// Before the port can be given to anybody again.
void Worker::source_ended(Direction direction, const SocketAddress& source) {
  if (direction == Direction::outbound && source_ports) source_ports->ports().ended(source.port, loop.now());
}

void Worker::shed(Direction direction, Reason reason, const SocketAddress& source) {
  counters.shed[static_cast<std::size_t>(reason)].add();
  source_ended(direction, source);
  ++shed_since_line_;
  if (loop.now() - last_shed_line_ < std::chrono::seconds(10)) return;
  last_shed_line_ = loop.now();
  log.warning("connections_shed", {{"reason", name_of(reason)},
                                   {"direction", name_of(direction)},
                                   {"last_source", source.text()},
                                   {"since_last_line", std::to_string(shed_since_line_)}});
  shed_since_line_ = 0;
}

void Worker::report_exception(std::exception_ptr exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const std::exception& e) {
    log.error("connection_failed", {{"what", e.what()}});
  } catch (...) {
    log.error("connection_failed", {{"what", "unknown exception"}});
  }
}

Worker::Admission::Admission(Worker& worker, Direction direction, const SocketAddress& source)
    : worker_(worker), direction_(direction), source_(source) {
  worker_.task_started();
  ++worker_.connections_;
  if (direction_ == Direction::inbound && worker_.config.limits.max_connections_per_source > 0) ++worker_.per_source_[source_.address];
}

Worker::Admission::~Admission() {
  worker_.source_ended(direction_, source_);
  --worker_.connections_;
  if (direction_ == Direction::inbound && worker_.config.limits.max_connections_per_source > 0) {
    const auto at = worker_.per_source_.find(source_.address);
    if (--at->second == 0) worker_.per_source_.erase(at);
  }
  worker_.task_ended();
}

}  // namespace postern
