#include "control/control.hpp"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>
#include <cstdlib>
#include <map>
#include <utility>

namespace postern {
namespace {

namespace asio = boost::asio;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr auto settle_delay = std::chrono::milliseconds{10};
constexpr auto overdue_look = std::chrono::seconds{1};
constexpr auto overdue_after = std::chrono::seconds{10};  // an edit that is not in force by then is worth an Event
constexpr auto uid_retry = std::chrono::milliseconds{500};

std::size_t index_of(WatchedKind kind) { return static_cast<std::size_t>(kind); }

double seconds_between(std::chrono::steady_clock::time_point from, std::chrono::steady_clock::time_point to) {
  return std::chrono::duration<double>(to - from).count();
}

Result<KubeConfig> kube_config_of(const ControlConfig& config) {
  if (!config.kubeconfig.empty()) return load_kubeconfig(config.kubeconfig);
  std::map<std::string, std::string> environment;
  for (const char* name : {"KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"}) {
    if (const char* value = std::getenv(name); value != nullptr) environment.emplace(name, value);
  }
  return in_cluster_config(environment);
}

std::string replica_name(const ControlConfig& config) {
  if (!config.replica.empty()) return config.replica;
  std::array<char, 256> name{};
  return ::gethostname(name.data(), name.size() - 1) == 0 ? std::string(name.data()) : std::string("postern-control");
}

EventRecorderSettings recorder_settings(const ControlConfig& config) {
  EventRecorderSettings settings;
  settings.reporting_instance = replica_name(config);
  return settings;
}

}  // namespace

Result<std::unique_ptr<Control>> Control::make(ControlConfig config, Log& log) {
  auto kube = kube_config_of(config);
  if (!kube) return kube.error();
  std::unique_ptr<Control> control(new Control(std::move(config), *std::move(kube), log));
  const ControlConfig& settings = control->config_;
  if (!settings.authority.enabled) {
    auto source = FileSource::make({settings.identity.certificate, settings.identity.key, settings.identity.bundle});
    if (!source) return source.error();
    control->identity_source_ = *std::move(source);
  }
  auto socket = listen_on_port(settings.listen.stream, "listen.stream");
  if (!socket) return socket.error();
  const Port stream_port = socket->port();
  if (!settings.webhook.settings.empty()) {
    auto webhooks = Webhooks::make(control->io_, control->client_, control->recorder_, settings, log);
    if (!webhooks) return webhooks.error();
    control->webhooks_ = *std::move(webhooks);
  }
  if (!settings.federated_bundles.empty()) {
    auto federation = Federation::make(control->io_, settings.federated_bundles, log, [server = control->server_.get()](auto resources) {
      server->use_federated_bundles(std::move(resources));
    });
    if (!federation) return federation.error();
    control->federation_ = *std::move(federation);
    control->federation_->start();
  }
  auto admin = ControlAdmin::start(settings, *control, log);
  if (!admin) return admin.error();
  control->admin_ = *std::move(admin);
  Port signing_port;
  if (settings.authority.enabled) {
    auto made = control->make_authority();
    if (!made) return made.error();
    signing_port = *made;
  } else {
    control->read_identity();
  }
  control->server_->start(*std::move(socket));
  log.info("listening", {{"stream", std::to_string(stream_port.number)},
                         {"signing", std::to_string(signing_port.number)},
                         {"health", std::to_string(control->admin_->health_port().number)},
                         {"api_server", control->client_.config().host + ":" + std::to_string(control->client_.config().port)}});
  return control;
}

Control::Control(ControlConfig config, KubeConfig kube, Log& log)
    : config_(std::move(config)),
      log_(log),
      store_(MeshConfig{config_.mesh, {}}),
      publisher_(store_),
      client_(io_, std::move(kube)),
      recorder_(io_, client_, recorder_settings(config_), log),
      events_(recorder_),
      server_(std::make_unique<PolicyServer>(
          io_, config_, store_, publisher_, log, [this] { flush(); }, [this] { settle_soon(); },
          [this](const Mark& mark) { catch_up(mark); })),
      replica_(replica_name(config_)),
      flush_timer_(io_),
      settle_timer_(io_),
      signals_(io_) {}

Control::~Control() {
  admin_.reset();
  federation_.reset();
  signing_.reset();
  authority_.reset();
  server_.reset();
}

int Control::run() {
  // Only now: a failure of make() must not swallow the signals.
  signals_.add(SIGTERM);
  signals_.add(SIGINT);
  asio::co_spawn(io_, end_on_signal(), asio::detached);
  if (identity_source_) {
    identity_fd_ = std::make_unique<asio::posix::stream_descriptor>(io_, ::dup(identity_source_->fd()));
    asio::co_spawn(io_, identity_loop(), asio::detached);
  }
  asio::co_spawn(io_, flush_loop(), asio::detached);
  asio::co_spawn(io_, settle_loop(), asio::detached);
  start_ticket_keys();
  start_watching();
  if (webhooks_) webhooks_->start();
  io_.run();
  return 0;
}

void Control::start_watching() {
  learning_uid_ = true;
  asio::co_spawn(io_, learn_store_uid(), asio::detached);
  for (const WatchedKind kind : watched_kinds) {
    ReflectorSettings settings;
    settings.kind = kind;
    settings.mesh_config = {config_.config_map.ns, config_.config_map.name};
    settings.mesh_defaults = MeshConfig{config_.mesh, {}};
    Reflector::Handlers handlers;
    handlers.on_event = [this](WatchEvent event) { on_event(std::move(event)); };
    handlers.on_unreadable = [this](const Unreadable& object) { on_unreadable(object); };
    handlers.last_good = [this](WatchedKind of, const ObjectKey& key) { return last_good(of, key); };
    reflectors_.push_back(std::make_unique<Reflector>(io_, client_, std::move(settings), std::move(handlers), log_));
    reflectors_.back()->start();
  }
}

void Control::on_event(WatchEvent event) {
  const WatchedKind kind = event.kind;
  const WatchEvent::Type type = event.type;
  events_.saw(event);
  store_.apply(std::move(event));
  if (type == WatchEvent::Type::relisted) {
    auto& synced_at = synced_at_[index_of(kind)];
    // The cluster may have become another one, restored from a backup say: what marks count from then on is another history.
    if (synced_at && kind == WatchedKind::namespaces && !learning_uid_) {
      learning_uid_ = true;
      asio::co_spawn(io_, learn_store_uid(), asio::detached);
    }
    if (!synced_at) synced_at = Clock::now();
  }
  changed();
}

void Control::catch_up(const Mark& mark) {
  for (const auto& [kind, version] : store_.unseen(mark)) reflectors_[index_of(kind)]->want(version);
}

void Control::on_unreadable(const Unreadable& object) {
  const std::string name = object.key.ns.empty() ? object.key.name : object.key.text();
  log_.warning("object_unreadable", {{"kind", name_of(object.kind)}, {"object", name}, {"reason", object.reason}});
  events_.unreadable(object);
}

std::optional<WatchedObject> Control::last_good(WatchedKind kind, const ObjectKey& key) const {
  const ClusterView& view = store_.view();
  const auto find = [](const auto& objects, const auto& name) -> std::optional<WatchedObject> {
    const auto found = objects.find(name);
    return found == objects.end() ? std::nullopt : std::optional<WatchedObject>(found->second);
  };
  switch (kind) {
    case WatchedKind::pods: return find(view.pods, key);
    case WatchedKind::namespaces: return find(view.namespaces, key.name);
    case WatchedKind::network_policies: return find(view.policies, key);
    case WatchedKind::services: return find(view.services, key);
    case WatchedKind::endpoint_slices: return find(view.endpoint_slices, key);
    case WatchedKind::nodes: return find(view.nodes, key.name);
    case WatchedKind::mesh_config: return synced_at_[index_of(kind)] ? std::optional<WatchedObject>(store_.mesh()) : std::nullopt;
  }
  return std::nullopt;
}

asio::awaitable<void> Control::learn_store_uid() {
  asio::steady_timer pause(io_);
  std::string last_error;
  while (!client_.closed()) {
    KubeRequest request;
    request.path = "/api/v1/namespaces/kube-system";
    const KubeRequest asked = request;
    const Result<KubeResponse> response = co_await client_.request(std::move(request));
    std::string error;
    if (!response) {
      error = response.error().text();
    } else if (!response->ok()) {
      error = refusal_of(asked, *response).text();
    } else {
      const Result<Node> object = parse_object(WatchedKind::namespaces, response->body, asked.path);
      const Result<ObjectIdentity> identity = object ? identity_of(*object) : Result<ObjectIdentity>(object.error());
      if (identity && !identity->uid.empty()) {
        if (!store_uid_.empty() && store_uid_ != identity->uid) {
          log_.warning("cluster_changed", {{"before", store_uid_}, {"now", identity->uid}});
        }
        store_uid_ = identity->uid;
        store_.set_store_uid(store_uid_);
        learning_uid_ = false;
        changed();
        co_return;
      }
      error = identity ? "the namespace kube-system has no UID" : identity.error().text();
    }
    if (error != last_error) log_.warning("api_server_unavailable", {{"error", error}});
    last_error = error;
    pause.expires_after(uid_retry);
    co_await pause.async_wait(as_values);
  }
}

void Control::changed() {
  dirty_last_ = Clock::now();
  if (dirty_) return;
  dirty_ = true;
  dirty_since_ = dirty_last_;
  flush_timer_.cancel();
}

// Changes that come together are published together: once it has been quiet for a little, or at the longest wait.
asio::awaitable<void> Control::flush_loop() {
  while (true) {
    const auto due =
        dirty_ ? std::min(dirty_last_ + config_.publish.quiet, dirty_since_ + config_.publish.longest) : Clock::time_point::max();
    if (dirty_ && Clock::now() >= due) {
      flush();
      // Not everything is listed yet: the next event says more.
      if (dirty_) dirty_ = false;
      continue;
    }
    flush_timer_.expires_at(due);
    co_await flush_timer_.async_wait(as_values);
  }
}

void Control::flush() {
  if (!dirty_ || !store_.synced() || store_uid_.empty()) return;
  dirty_ = false;
  note_in_force();
  const auto began = Clock::now();
  const Changes changes = publisher_.flush();
  const auto ended = Clock::now();
  flush_duration_.observe(seconds_between(began, ended));
  in_force_.changed(changes, store_, publisher_, dirty_since_);
  if (!published_) {
    published_ = true;
    const ClusterView& view = store_.view();
    log_.info("published", {{"pods", std::to_string(view.pods.size())},
                            {"policies", std::to_string(view.policies.size())},
                            {"seconds", std::to_string(seconds_between(began_, ended))}});
  }
  const bool no_ranges = publisher_.ranges().empty();
  if (no_ranges && !warned_of_ranges_) {
    log_.warning(
        "cluster_ranges_unknown",
        {{"remedy",
          "set mesh.clusterCidrs (here or in the mesh's ConfigMap) to the ranges of pods and Services: no Node has a podCIDR, and there is "
          "no "
          "Service, and without them an address that a sidecar does not know counts as outside the cluster, and is never looked up"}});
  }
  warned_of_ranges_ = no_ranges;
  server_->flushed(store_.mark());
  if (webhooks_) webhooks_->look_for_uninjected(store_, changes);
  settle_soon();
}

void Control::settle_soon() {
  if (settling_) return;
  settling_ = true;
  settle_timer_.cancel();
}

asio::awaitable<void> Control::settle_loop() {
  while (true) {
    const auto idle = in_force_.pending() > 0 ? Clock::now() + overdue_look : Clock::time_point::max();
    settle_timer_.expires_at(settling_ ? Clock::now() + settle_delay : idle);
    co_await settle_timer_.async_wait(as_values);
    if (Clock::now() < settle_timer_.expiry()) continue;  // woken up to wait for what comes with it
    settling_ = false;
    settle();
  }
}

// Tells of the edits that are in force by what was published last.
void Control::note_in_force() {
  for (const InForceClock::Settled& edit : in_force_.settle(
           publisher_, [this](const WorkloadKey& key) { return stream_state(key); }, Clock::now())) {
    edit_to_enforced_.observe(edit.took.count());
    log_.debug("policy_in_force", {{"policy", edit.policy.text()}, {"seconds", std::to_string(edit.took.count())}});
    if (!edit.audit) events_.in_force(edit.policy, edit.generation, edit.enforcing, edit.took.count());
  }
}

void Control::settle() {
  flush();  // an edit that is seen but not compiled must not count as enforced
  if (authority_ && authority_->rotating()) authority_->look_soon();
  note_in_force();
  const auto stream_of = [this](const WorkloadKey& key) { return stream_state(key); };
  for (const ObjectKey& policy : in_force_.overdue(Clock::now(), overdue_after)) {
    for (const PolicyStatus& status : policy_status(store_, publisher_, stream_of, policy.ns, policy.name)) {
      events_.not_in_force(status, std::chrono::duration<double>(overdue_after).count());
    }
  }
}

StreamState Control::stream_state(const WorkloadKey& key) const {
  StreamState state;
  const PolicyStream* stream = server_->stream_of(key);
  if (stream == nullptr) return state;
  state.connected = true;
  if (stream->acknowledged_once()) state.acknowledged = &stream->acknowledged();
  state.since = stream->enforced_since();
  state.refusal = stream->refusal();
  return state;
}

void Control::start_ticket_keys() {
  const auto use = [this](TicketKeys keys) {
    if (auto used = server_->use_ticket_keys(std::move(keys)); !used) log_.error("ticket_keys_unusable", {{"error", used.error().text()}});
  };
  // Until the Secret has been read, and where there is none.
  if (auto own = TicketKey::make()) use(TicketKeys{{*own}, 0});
  if (config_.ticket_keys.secret.empty()) return;
  const auto rotation = std::chrono::duration_cast<std::chrono::seconds>(config_.ticket_keys.rotation);
  ticket_keys_ = std::make_unique<SharedTicketKeys>(
      io_, client_, SharedTicketKeysSettings{config_.config_map.ns, config_.ticket_keys.secret, rotation}, log_, use);
  ticket_keys_->start();
}

asio::awaitable<void> Control::identity_loop() {
  while (true) {
    const auto [error] = co_await identity_fd_->async_wait(asio::posix::descriptor_base::wait_read, as_values);
    if (error) co_return;
    read_identity();
  }
}

void Control::read_identity() {
  auto read = identity_source_->poll();
  for (const std::string& warning : identity_source_->take_warnings()) log_.warning("identity_warning", {{"warning", warning}});
  if (!read) return;
  Result<void> used;
  if (!*read) {
    used = read->error();
  } else {
    const std::string expected = "spiffe://" + config_.mesh.trust_domain.text() + "/postern/control";
    const std::string& id = (**read)->svid.id.text();
    if (id != expected) {
      used = Error{"the SVID is " + id + "; sidecars take no other than " + expected, config_.identity.certificate};
    } else {
      used = server_->use_identity(**read);
    }
  }
  if (!used) {
    ++identity_rejected_;
    identity_error_ = used.error().text();
    log_.error("identity_rejected", {{"error", identity_error_}});
    return;
  }
  identity_error_.clear();
  identity_ = **read;
  const TrustBundle* bundle = identity_->bundles.find(config_.mesh.trust_domain.text());
  if (webhooks_ && bundle != nullptr) webhooks_->use_roots(authorities_pem(*bundle));
  log_.info("identity_in_use", {{"spiffe_id", identity_->svid.id.text()}, {"serial", identity_->svid.serial}});
}

asio::awaitable<void> Control::end_on_signal() {
  const auto [error, signal] = co_await signals_.async_wait(as_values);
  if (error) co_return;
  log_.info("ending", {{"signal", std::to_string(signal)}, {"streams", std::to_string(server_->count())}});
  for (const auto& reflector : reflectors_) reflector->stop();
  server_->close();
  if (authority_) authority_->stop();
  if (signing_) signing_->close();
  asio::steady_timer pause(io_);
  const auto until = Clock::now() + config_.drain_period;
  while (server_->count() > 0 && Clock::now() < until) {
    pause.expires_after(std::chrono::milliseconds{10});
    co_await pause.async_wait(as_values);
  }
  webhooks_.reset();
  recorder_.stop();
  client_.close();
  log_.info("ended", {{"streams_cut", std::to_string(server_->count())}});
  io_.stop();
}

}  // namespace postern
