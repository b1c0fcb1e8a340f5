#include "proxy/policy_client.hpp"

#include <algorithm>
#include <atomic>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <thread>

#include "base/back_off.hpp"
#include "base/thread.hpp"
#include "certs/trust_bundle.hpp"
#include "proxy/control_stream.hpp"
#include "proxy/host_port.hpp"
#include "proxy/policy_state.hpp"

namespace postern {

namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using std::chrono::milliseconds;
using std::chrono::steady_clock;
using std::chrono::system_clock;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr milliseconds first_back_off{200};
constexpr milliseconds longest_back_off{10'000};
constexpr std::chrono::seconds first_update_within{30};  // of a stream's beginning; a cluster of replicas that start is slow
constexpr std::chrono::seconds not_ready_within{5};      // and then another replica is tried: one that asks the API server takes three
constexpr milliseconds between_writes{250};              // of the state file
constexpr std::chrono::seconds say_again_after{60};      // that the control plane cannot be reached
constexpr std::size_t looked_up_max = 2048;              // beyond it, those without a connection are forgotten

std::string seconds_text(double seconds) { return std::to_string(static_cast<std::int64_t>(seconds)); }

}  // namespace

class PolicyClient::Impl {
 public:
  Impl(const Config& config, PolicyReceiver& receiver, Log& log, SpiffeId control)
      : config_(config),
        receiver_(receiver),
        log_(log),
        control_(std::move(control)),
        held_({config.workload.ns, config.workload.name}, config.mesh),
        sessions_(std::make_shared<SessionCache>(64)),
        lookups_([this] { asio::post(io_, [this] { send_lookups(false); }); }, config.control.lookup_timeout) {}

  ~Impl() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
    if (save_pending_) save();
    stream_.reset();  // before its io_context
  }

  void load_state();
  void start() {
    asio::co_spawn(io_, run(), asio::detached);
    thread_ = start_without_signals("policy", [this] { io_.run(); });
  }
  void adopt_identity(const X509ContextPtr& identity) {
    asio::post(io_, [this, identity] { take_identity(identity); });
  }
  Lookups& lookups() { return lookups_; }
  Facts facts() const;

 private:
  using Stream = std::shared_ptr<ControlStream>;
  enum class Ended : std::uint8_t { before_an_update, after_one };

  asio::awaitable<void> run();
  asio::awaitable<std::vector<tcp::endpoint>> candidates();
  asio::awaitable<Ended> converse(tcp::endpoint to);
  asio::awaitable<void> wait(milliseconds time);
  bool handle(const std::string& text);  // false: the stream ends
  bool handle_update(const Update& update);
  void enforced(std::uint64_t stream, std::uint64_t nonce, std::uint64_t generation);
  void take_identity(const X509ContextPtr& identity);
  void send_lookups(bool again);
  void forget_unused();
  void confirm();
  void save_soon();
  void save();
  Result<void> check_trust_bundle(const Update& update) const;
  Result<void> check_federated_bundle(const Resource& resource) const;
  std::function<void()> after_roots(std::function<void()> done);
  void refuse(std::uint64_t nonce, const std::string& reason);
  void say_unreachable(const std::string& address, const std::string& error);
  double confirmed_seconds_ago() const {
    return std::chrono::duration<double>(system_clock::now() - system_clock::time_point(system_clock::duration(confirmed_.load()))).count();
  }

  const Config& config_;
  PolicyReceiver& receiver_;
  Log& log_;
  const SpiffeId control_;
  HeldPolicy held_;
  std::uint64_t generation_ = 0;        // of the newest snapshot handed out
  std::uint64_t enforced_ = 0;          // of the newest one that is in force
  std::uint64_t roots_adopted_ = 0;     // the sequence of the newest trust bundle handed out
  FederatedBundles federated_adopted_;  // the bundles of other trust domains as last handed out
  X509ContextPtr identity_;
  std::shared_ptr<const TlsContext> tls_;
  std::uint64_t tls_generation_ = 0;
  std::shared_ptr<SessionCache> sessions_;
  Lookups lookups_;

  // The present stream.
  Stream stream_;
  std::uint64_t stream_number_ = 0;
  tcp::endpoint connected_to_;
  X509ContextPtr stream_identity_;
  bool in_step_ = false;  // what it sent last is enforced
  bool alone_ = false;    // there is no other replica
  bool forgetting_ = false;
  bool save_pending_ = false;
  steady_clock::time_point saved_{};
  steady_clock::time_point said_unreachable_{};
  std::mt19937 random_{std::random_device()()};

  // Read by any thread.
  std::atomic<bool> connected_{false};
  std::atomic<system_clock::duration::rep> confirmed_{system_clock::now().time_since_epoch().count()};
  std::atomic<std::uint64_t> updates_{0};
  std::atomic<std::uint64_t> refused_{0};
  std::atomic<std::uint64_t> streams_{0};

  // After what the coroutines refer to: they die with it, first.
  asio::io_context io_{1};
  asio::steady_timer changed_{io_, steady_clock::time_point::max()};  // cancelled when identity or enforcement has moved
  asio::steady_timer first_update_{io_};
  asio::steady_timer renew_{io_};
  asio::steady_timer save_timer_{io_};
  std::thread thread_;
};

void PolicyClient::Impl::load_state() {
  const std::string& folder = config_.control.state_dir;
  if (folder.empty()) return;
  if (!is_memory_backed(folder)) {
    log_.warning("state_dir_not_in_memory", {{"folder", folder}, {"remedy", "mount an emptyDir with medium: Memory there"}});
  }
  const auto refuse_state = [&](const Error& error) {
    refused_.fetch_add(1);
    log_.error("policy_state_refused",
               {{"folder", folder}, {"error", error.text()}, {"then", "no policy until the control plane is reached"}});
  };
  const auto bytes = read_policy_state(folder);
  if (!bytes) return refuse_state(bytes.error());
  if (!*bytes) return log_.info("no_policy_state", {{"folder", folder}});
  const auto state = decode_policy_state(**bytes);
  if (!state) return refuse_state(state.error());
  const std::string self = config_.workload.ns + "/" + config_.workload.name;
  if (state->workload != self) return refuse_state(Error{"it is that of " + state->workload + ", this is " + self, ""});
  if (auto young = check_age(*state, system_clock::now(), config_.control.max_policy_age); !young) return refuse_state(young.error());
  auto snapshot = held_.apply(state->update, generation_ + 1, state->written_at);
  if (!snapshot) return refuse_state(snapshot.error());
  if (!*snapshot) return;
  const std::uint64_t generation = ++generation_;
  confirmed_ = state->written_at.time_since_epoch().count();
  log_.info("policy_state_loaded", {{"generation", std::to_string(generation)}, {"age_s", seconds_text(confirmed_seconds_ago())}});
  receiver_.enforce(*snapshot, after_roots([this, generation] { asio::post(io_, [this, generation] { enforced(0, 0, generation); }); }));
}

// The roots that an update brings must be readable, or the whole update is refused.
Result<void> PolicyClient::Impl::check_trust_bundle(const Update& update) const {
  for (const ResourcePtr& resource : update.resources) {
    if (resource->name.starts_with(federated_bundle_prefix)) {
      if (auto checked = check_federated_bundle(*resource); !checked) return checked.error();
    }
    if (resource->name != trust_bundle_name) continue;
    SnapshotParts parts;
    if (auto read = decode_into(parts, *resource); !read) return read.error();
    const auto bundle = TrustBundle::parse(parts.trust_bundle->roots, config_.mesh.trust_domain);
    if (!bundle) return Error{bundle.error().text(), std::string(trust_bundle_name)};
  }
  return {};
}

// The mesh's own trust domain has its bundle from elsewhere: nothing under another name may stand in for it.
Result<void> PolicyClient::Impl::check_federated_bundle(const Resource& resource) const {
  SnapshotParts parts;
  if (auto read = decode_into(parts, resource); !read) return read.error();
  const auto& [name, record] = *parts.federated_bundles.begin();
  const auto domain = TrustDomain::parse(name);
  if (*domain == config_.mesh.trust_domain) return Error{"is of the mesh's own trust domain", resource.name};
  const auto bundle = TrustBundle::parse(record.roots, *domain);
  if (!bundle) return Error{bundle.error().text(), resource.name};
  return {};
}

// `done`, when every worker also has the trust bundles that are held now, the mesh's and those of other trust domains. Called when the
// workers have the policy.
std::function<void()> PolicyClient::Impl::after_roots(std::function<void()> done) {
  const auto& bundle = held_.parts().trust_bundle;
  const bool new_roots = bundle && bundle->sequence > roots_adopted_;
  const bool new_federated = held_.parts().federated_bundles != federated_adopted_;
  if (!new_roots && !new_federated) return done;
  struct All {
    std::atomic<int> left{1};  // the policy
    std::function<void()> done;
  };
  const auto all = std::make_shared<All>();
  all->left += static_cast<int>(new_roots) + static_cast<int>(new_federated);
  all->done = std::move(done);
  const auto one_of_them = [all] {
    if (all->left.fetch_sub(1) == 1) all->done();
  };
  if (new_roots) {
    roots_adopted_ = bundle->sequence;
    receiver_.adopt_roots({bundle->sequence, bundle->roots}, one_of_them);
  }
  if (new_federated) {
    federated_adopted_ = held_.parts().federated_bundles;
    receiver_.adopt_federated(federated_adopted_, one_of_them);
  }
  return one_of_them;
}

asio::awaitable<void> PolicyClient::Impl::wait(milliseconds time) {
  asio::steady_timer timer(io_, time);
  co_await timer.async_wait(as_values);
}

asio::awaitable<void> PolicyClient::Impl::run() {
  BackOff back_off(first_back_off, longest_back_off);
  while (true) {
    while (!tls_) co_await changed_.async_wait(as_values);  // the server says what is wrong with the identity
    const std::vector<tcp::endpoint> endpoints = co_await candidates();
    bool had_one = false;
    for (const tcp::endpoint& endpoint : endpoints) {
      if (co_await converse(endpoint) == Ended::before_an_update) continue;
      had_one = true;
      break;
    }
    milliseconds before_the_next = back_off.next(random_);
    if (had_one) {
      // A replica that ended has many sidecars: they come back one by one.
      back_off.reset();
      before_the_next = milliseconds(std::uniform_int_distribution<milliseconds::rep>(0, first_back_off.count())(random_));
    }
    co_await wait(before_the_next);
  }
}

// Every address of every replica, in random order; the one that was used last comes last.
asio::awaitable<std::vector<tcp::endpoint>> PolicyClient::Impl::candidates() {
  std::vector<tcp::endpoint> endpoints;
  tcp::resolver resolver(io_);
  for (const std::string& address : config_.control.addresses) {
    const auto [host, port] = split_host_port(address);
    const auto resolved = co_await resolver.async_resolve(host, port, as_values);
    const boost::system::error_code ec = std::get<0>(resolved);
    if (ec) say_unreachable(address, "its name cannot be resolved: " + ec.message());
    for (const auto& entry : std::get<1>(resolved)) endpoints.push_back(entry.endpoint());
  }
  std::shuffle(endpoints.begin(), endpoints.end(), random_);
  std::stable_partition(endpoints.begin(), endpoints.end(), [this](const tcp::endpoint& each) { return each != connected_to_; });
  alone_ = endpoints.size() == 1;
  co_return endpoints;
}

asio::awaitable<PolicyClient::Impl::Ended> PolicyClient::Impl::converse(tcp::endpoint to) {
  const std::string address = to.address().to_string() + ":" + std::to_string(to.port());
  const X509ContextPtr identity = identity_;
  const ControlStream::Timeouts timeouts;
  auto connected = co_await ControlStream::connect(to, tls_, control_, timeouts);
  if (!connected) {
    say_unreachable(address, connected.error().text());
    co_return Ended::before_an_update;
  }
  // What we say that we have is what is enforced.
  while (enforced_ != generation_) co_await changed_.async_wait(as_values);
  stream_ = *connected;
  stream_identity_ = identity;
  connected_to_ = to;
  in_step_ = false;
  ++stream_number_;
  streams_.fetch_add(1);
  log_.info("control_connected", {{"address", address}, {"tls", stream_->resumed() ? "resumed" : "full handshake"}});
  stream_->on_pong([this] {
    if (in_step_) confirm();
  });
  const std::weak_ptr<ControlStream> weak = stream_;
  first_update_.expires_after(first_update_within);
  first_update_.async_wait([weak](const boost::system::error_code& ec) {
    if (const auto stream = weak.lock(); stream && !ec) stream->close();
  });
  Hello hello;
  hello.version = POSTERN_VERSION;
  hello.mark = held_.mark();
  hello.have = held_.hashes();
  stream_->send(encode(SidecarMessage(hello)));
  send_lookups(true);

  std::string why;
  while (why.empty()) {
    const auto message = co_await stream_->read();
    if (!message) {
      why = message.error().text();
    } else if (!handle(*message)) {
      why = "refused by this sidecar";
    }
  }
  first_update_.cancel();
  renew_.cancel();
  stream_->finish();  // a NACK may still be on its way
  stream_.reset();
  connected_ = false;
  log_.warning("control_disconnected", {{"address", address}, {"why", why}, {"policy", "the last good one stays in force"}});
  co_return std::exchange(in_step_, false) ? Ended::after_one : Ended::before_an_update;
}

bool PolicyClient::Impl::handle(const std::string& text) {
  auto message = decode_control_message(text);
  if (!message) {
    refused_.fetch_add(1);
    log_.error("control_message_refused", {{"error", message.error().text()}});
    return false;
  }
  if (const auto* update = std::get_if<Update>(&*message)) return handle_update(*update);
  if (const auto* answer = std::get_if<LookupAnswer>(&*message)) {
    // What was found came in an update before: its snapshot was posted to the workers before this answer is.
    lookups_.answer(*answer, steady_clock::now());
    return true;
  }
  const auto& not_ready = std::get<NotReady>(*message);
  log_.info("control_not_ready", {{"why", not_ready.reason}});
  if (alone_) return true;
  const std::weak_ptr<ControlStream> weak = stream_;
  first_update_.expires_after(not_ready_within);
  first_update_.async_wait([weak](const boost::system::error_code& ec) {
    if (const auto stream = weak.lock(); stream && !ec) stream->close();
  });
  return true;
}

bool PolicyClient::Impl::handle_update(const Update& update) {
  first_update_.cancel();
  if (held_.is_older(update.mark)) {
    refuse(update.nonce, "older than what is enforced: this replica lags behind");
    return false;
  }
  if (held_.is_new_epoch(update.mark)) {
    log_.warning("policy_epoch_changed", {{"from", held_.mark().epoch}, {"to", update.mark.epoch}});
  }
  const auto roots = check_trust_bundle(update);
  auto snapshot =
      roots ? held_.apply(update, generation_ + 1, system_clock::now()) : Result<std::shared_ptr<const PolicySnapshot>>(roots.error());
  if (!snapshot) {
    refuse(update.nonce, snapshot.error().text());
    return true;
  }
  receiver_.policy_refused("");
  const std::uint64_t stream = stream_number_;
  if (!*snapshot) {
    // In force is what was: acknowledged as soon as that is so.
    enforced(stream, update.nonce, enforced_);
    return true;
  }
  const std::uint64_t generation = ++generation_;
  receiver_.enforce(*snapshot, after_roots([this, stream, generation, nonce = update.nonce] {
    asio::post(io_, [this, stream, generation, nonce] { enforced(stream, nonce, generation); });
  }));
  return true;
}

// Every worker has adopted it and decided its live connections again: that, and nothing less, is acknowledged.
void PolicyClient::Impl::enforced(std::uint64_t stream, std::uint64_t nonce, std::uint64_t generation) {
  enforced_ = std::max(enforced_, generation);
  changed_.cancel();
  if (stream == 0 || stream != stream_number_ || !stream_) return;
  stream_->send(encode(SidecarMessage(Ack{nonce})));
  updates_.fetch_add(1);
  if (!std::exchange(in_step_, true)) {
    connected_ = true;
    said_unreachable_ = {};
    log_.info("control_in_step", {{"generation", std::to_string(enforced_)}});
  }
  confirm();
  save_soon();
  forget_unused();
}

void PolicyClient::Impl::refuse(std::uint64_t nonce, const std::string& reason) {
  refused_.fetch_add(1);
  in_step_ = false;
  log_.error("policy_rejected", {{"error", reason}, {"kept", generation_ > 0 ? "the last good policy" : "none: everything is refused"}});
  receiver_.policy_refused(reason);
  stream_->send(encode(SidecarMessage(Nack{nonce, reason.substr(0, 1024)})));
}

void PolicyClient::Impl::take_identity(const X509ContextPtr& identity) {
  TlsSettings settings;
  settings.groups = config_.tls.groups;
  settings.alpn = control_alpn;
  settings.read_buffer_bytes = 17U << 10;
  settings.tcp_end_is_enough = true;  // a WebSocket has a closing handshake of its own
  auto context = TlsContext::make(identity, settings, sessions_, ++tls_generation_);
  if (!context) return log_.error("identity_rejected", {{"error", context.error().text()}, {"for", "the stream from the control plane"}});
  if (tls_) tls_->retire();
  tls_ = std::make_shared<const TlsContext>(std::move(*context));
  identity_ = without_key(*identity);
  changed_.cancel();
  if (!stream_ || !stream_identity_) return;
  // A stream outlives the rotation of the SVID that it was made with, but not that SVID.
  const bool other = !(stream_identity_->svid.id == identity->svid.id);
  constexpr std::chrono::seconds before_its_end{10};
  const auto left = stream_identity_->svid.not_after - system_clock::now() - before_its_end;
  renew_.expires_after(other ? steady_clock::duration(0) : std::chrono::duration_cast<steady_clock::duration>(left));
  const std::weak_ptr<ControlStream> weak = stream_;
  renew_.async_wait([weak](const boost::system::error_code& ec) {
    if (const auto stream = weak.lock(); stream && !ec) stream->close();
  });
}

void PolicyClient::Impl::send_lookups(bool again) {
  if (!stream_) return;  // they are asked again on the next one, if somebody still waits
  for (const Lookup& lookup : lookups_.take(steady_clock::now(), again)) stream_->send(encode(SidecarMessage(lookup)));
}

// What was looked up is kept current by the stream; where that has become much, what no connection uses is given back.
void PolicyClient::Impl::forget_unused() {
  if (forgetting_ || held_.parts().pods.size() + held_.parts().services.size() <= looked_up_max) return;
  if (held_.looked_up_and_unused({}).size() <= looked_up_max) return;
  forgetting_ = true;
  receiver_.peers_in_use([this, stream = stream_number_](AddressSet in_use) {
    asio::post(io_, [this, stream, in_use = std::move(in_use)] {
      forgetting_ = false;
      if (!stream_ || stream != stream_number_) return;
      const Forget forget{held_.looked_up_and_unused(in_use)};
      if (!forget.names.empty()) stream_->send(encode(SidecarMessage(forget)));
    });
  });
}

void PolicyClient::Impl::confirm() {
  confirmed_ = system_clock::now().time_since_epoch().count();
  // The file's age is that of its confirmation: written anew from time to time, also where nothing changes.
  const auto often = std::min<milliseconds>(std::chrono::minutes(1), config_.control.max_policy_age / 10);
  if (steady_clock::now() - saved_ >= often) save_soon();
}

// At most once in a while, however fast updates come; acknowledgements do not wait for it.
void PolicyClient::Impl::save_soon() {
  if (config_.control.state_dir.empty() || std::exchange(save_pending_, true)) return;
  save_timer_.expires_at(std::max(saved_ + between_writes, steady_clock::now()));
  save_timer_.async_wait([this](const boost::system::error_code& ec) {
    if (!ec) save();
  });
}

void PolicyClient::Impl::save() {
  save_pending_ = false;
  if (enforced_ != generation_) return;  // its own end saves it
  saved_ = steady_clock::now();
  const PolicyState state{system_clock::time_point(system_clock::duration(confirmed_.load())),
                          config_.workload.ns + "/" + config_.workload.name, held_.whole()};
  const auto written = write_policy_state(config_.control.state_dir, encode_policy_state(state));
  if (!written) log_.error("policy_state_not_written", {{"error", written.error().text()}});
}

void PolicyClient::Impl::say_unreachable(const std::string& address, const std::string& error) {
  const auto now = steady_clock::now();
  const bool again = said_unreachable_ != steady_clock::time_point{} && now - said_unreachable_ < say_again_after;
  if (again) return log_.debug("control_unreachable", {{"address", address}, {"error", error}});
  said_unreachable_ = now;
  const std::string self = config_.workload.ns + "/" + config_.workload.name;
  const std::string hint =
      error == connection_timed_out
          ? "nothing answers there: where the cluster's network plugin enforces NetworkPolicies, too, one that isolates " + self +
                " for egress cuts it off from the control plane; add a NetworkPolicy that allows this pod egress to the pods of "
                "postern-control on TCP port " +
                split_host_port(address).second + " and to the cluster's DNS"
          : "see control.addresses, and whether postern-control runs there";
  log_.warning("control_unreachable",
               {{"address", address},
                {"error", error},
                {"hint", hint},
                {"policy", generation_ > 0 ? "the last good one stays in force" : "none: everything but probes is refused"},
                {"policy_age_s", generation_ > 0 ? seconds_text(confirmed_seconds_ago()) : "-"}});
}

PolicyClient::Facts PolicyClient::Impl::facts() const {
  Facts facts;
  facts.connected = connected_;
  facts.confirmed_seconds_ago = confirmed_seconds_ago();
  facts.updates = updates_;
  facts.refused = refused_;
  facts.streams = streams_;
  facts.lookups = lookups_.asked();
  return facts;
}

PolicyClient::PolicyClient(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
PolicyClient::~PolicyClient() = default;

Result<std::unique_ptr<PolicyClient>> PolicyClient::make(const Config& config, PolicyReceiver& receiver, Log& log) {
  auto control = SpiffeId::parse("spiffe://" + config.mesh.trust_domain.text() + "/postern/control");
  if (!control) return control.error();
  auto impl = std::make_unique<Impl>(config, receiver, log, std::move(*control));
  impl->load_state();
  impl->start();
  return std::unique_ptr<PolicyClient>(new PolicyClient(std::move(impl)));
}

void PolicyClient::adopt_identity(const X509ContextPtr& identity) { impl_->adopt_identity(identity); }
Lookups& PolicyClient::lookups() { return impl_->lookups(); }
PolicyClient::Facts PolicyClient::facts() const { return impl_->facts(); }

}  // namespace postern
