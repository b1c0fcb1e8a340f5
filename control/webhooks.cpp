#include "control/webhooks.hpp"

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <map>
#include <optional>
#include <utility>

#include "base/base64.hpp"
#include "base/document_files.hpp"
#include "base/document_writer.hpp"
#include "base/listening_socket.hpp"
#include "control/injection_options.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr std::chrono::seconds kLookAgain{10};
constexpr std::chrono::seconds kRetry{1};
constexpr std::size_t kPemBytes = 1U << 20;
constexpr std::string_view kRegistration = "/apis/admissionregistration.k8s.io/v1/";

std::string text_at(const Node& node, std::string_view key) {
  const Node* found = node.find(key);
  return found == nullptr ? std::string() : found->scalar;
}

Result<Node> read_object(const KubeResponse& response, const std::string& path) {
  auto document = parse_json(response.body, path);
  if (!document) return document.error();
  return std::move(document->root);
}

// The authority of a Secret's data, if there is one in it.
std::optional<PemPair> authority_of(const Node& secret) {
  const Node* data = secret.find("data");
  if (data == nullptr) return std::nullopt;
  const auto certificate = from_base64(text_at(*data, "ca.crt"));
  const auto key = from_base64(text_at(*data, "ca.key"));
  if (!certificate || !key || certificate->empty() || key->empty()) return std::nullopt;
  return PemPair{*certificate, *key};
}

Node secret_of(const ControlConfig& config, const PemPair& authority, const std::string& version) {
  Node metadata = make_object({{"name", make_text(config.webhook.secret)}, {"namespace", make_text(config.config_map.ns)}});
  if (!version.empty()) field_of(metadata, "resourceVersion") = make_text(version);
  return make_object(
      {{"apiVersion", make_text("v1")},
       {"kind", make_text("Secret")},
       {"metadata", metadata},
       {"type", make_text("Opaque")},
       {"data", make_object({{"ca.crt", make_text(to_base64(authority.certificate))}, {"ca.key", make_text(to_base64(authority.key))}})}});
}

// The operations that make every webhook of a configuration trust `authority`, beside the one it trusted before.
Node bundle_patch(const Node& configuration, const std::string& authority) {
  Node patch = make_list({});
  const Node* webhooks = configuration.find("webhooks");
  for (std::size_t i = 0; webhooks != nullptr && i < webhooks->items.size(); ++i) {
    const Node* client = webhooks->items[i].find("clientConfig");
    const std::string before = from_base64(client == nullptr ? std::string() : text_at(*client, "caBundle")).value_or(std::string());
    if (before.find(authority) != std::string::npos) continue;
    constexpr std::string_view kEnd = "-----END CERTIFICATE-----\n";
    const std::size_t end = before.find(kEnd);
    const std::string kept = end == std::string::npos ? std::string() : before.substr(0, end + kEnd.size());
    const std::string path = "/webhooks/" + std::to_string(i);
    patch.items.push_back(make_object(
        {{"op", make_text("test")}, {"path", make_text(path + "/name")}, {"value", make_text(text_at(webhooks->items[i], "name"))}}));
    patch.items.push_back(make_object({{"op", make_text("add")},
                                       {"path", make_text(path + "/clientConfig/caBundle")},
                                       {"value", make_text(to_base64(authority + kept))}}));
  }
  return patch;
}

}  // namespace

struct Webhooks::Impl : std::enable_shared_from_this<Webhooks::Impl> {
  Impl(asio::io_context& its_io, KubeClient& its_client, EventRecorder& its_recorder, const ControlConfig& its_config, Log& its_log,
       InjectionSettings its_settings, ListeningSocket socket)
      : io(its_io),
        client(its_client),
        recorder(its_recorder),
        config(its_config),
        log(its_log),
        settings(std::move(its_settings)),
        server(std::move(socket), log, {}),
        timer(io) {}

  asio::awaitable<void> run();
  asio::awaitable<Result<void>> renew();
  asio::awaitable<Result<PemPair>> authority();
  asio::awaitable<Result<PemPair>> put_authority(std::string version);
  asio::awaitable<Result<void>> announce(std::string resource, std::string certificate);
  Result<void> use_given();
  bool should_have_sidecar(const ClusterStore& store, const Pod& pod) const;
  void look_at(const ClusterStore& store, const ObjectKey& key);

  asio::io_context& io;
  KubeClient& client;
  EventRecorder& recorder;
  const ControlConfig& config;
  Log& log;
  InjectionSettings settings;
  WebhookServer server;
  asio::steady_timer timer;
  bool stopped = false;
  std::string error;                            // of the latest renewal
  PemPair serving;                              // in use
  PemPair issuer;                               // its authority; of given files: empty
  std::map<ObjectKey, std::string> uninjected;  // with the UID
};

asio::awaitable<void> Webhooks::Impl::run() {
  const auto self = shared_from_this();
  while (!stopped) {
    Result<void> renewed;
    if (config.webhook.certificate.empty()) {
      renewed = co_await renew();
    } else {
      renewed = use_given();
    }
    const std::string now = renewed ? std::string() : renewed.error().text();
    if (now != error && !now.empty()) log.error("webhook_certificate_failed", {{"error", now}});
    error = now;
    if (stopped) break;
    timer.expires_after(renewed ? kLookAgain : kRetry);
    co_await timer.async_wait(as_values);
  }
}

Result<void> Webhooks::Impl::use_given() {
  auto chain = read_file(config.webhook.certificate, kPemBytes);
  if (!chain) return chain.error();
  auto key = read_file(config.webhook.key, kPemBytes);
  if (!key) return key.error();
  PemPair given{*std::move(chain), *std::move(key)};
  if (given == serving) return {};
  if (auto used = server.use_certificate(given.certificate, given.key); !used)
    return Error{used.error().message, config.webhook.certificate};
  serving = std::move(given);
  log.info("webhook_certificate_in_use", {{"from", config.webhook.certificate}});
  return {};
}

asio::awaitable<Result<void>> Webhooks::Impl::renew() {
  Result<PemPair> current = co_await authority();
  if (!current) co_return current.error();
  for (const char* resource : {"mutatingwebhookconfigurations", "validatingwebhookconfigurations"}) {
    const Result<void> announced = co_await announce(resource, current->certificate);
    if (!announced) co_return announced.error();
  }
  const SystemTime now = std::chrono::system_clock::now();
  if (*current == issuer && !is_due_for_renewal(serving.certificate, now)) co_return Result<void>();
  const std::string service = config.webhook.service + "." + config.config_map.ns + ".svc";
  std::vector<std::string> names;
  names.push_back(service);
  names.push_back("localhost");  // a webhook that is registered by URL, on the API server's own machine
  auto made = make_webhook_certificate(*current, names, now);
  if (!made) co_return made.error();
  if (auto used = server.use_certificate(made->certificate, made->key); !used) co_return used.error();
  serving = *std::move(made);
  issuer = *std::move(current);
  log.info("webhook_certificate_in_use", {{"from", "secret " + config.webhook.secret}, {"name", service}});
  co_return Result<void>();
}

asio::awaitable<Result<PemPair>> Webhooks::Impl::authority() {
  KubeRequest request;
  request.path = "/api/v1/namespaces/" + config.config_map.ns + "/secrets/" + config.webhook.secret;
  const KubeRequest asked = request;
  const Result<KubeResponse> response = co_await client.request(std::move(request));
  if (!response) co_return response.error();
  if (response->status == 404) co_return co_await put_authority(std::string());
  if (!response->ok()) co_return refusal_of(asked, *response);
  const Result<Node> secret = read_object(*response, asked.path);
  if (!secret) co_return secret.error();
  auto found = authority_of(*secret);
  if (found && !is_due_for_renewal(found->certificate, std::chrono::system_clock::now())) co_return *std::move(found);
  const Node* metadata = secret->find("metadata");
  std::string version = metadata == nullptr ? std::string() : text_at(*metadata, "resourceVersion");
  co_return co_await put_authority(std::move(version));
}

// Made once by whoever comes first: the others are told "conflict" and read it the next time.
asio::awaitable<Result<PemPair>> Webhooks::Impl::put_authority(std::string version) {
  auto made = make_webhook_authority(std::chrono::system_clock::now());
  if (!made) co_return made.error();
  KubeRequest request;
  request.method = version.empty() ? KubeMethod::post : KubeMethod::put;
  request.path =
      "/api/v1/namespaces/" + config.config_map.ns + "/secrets" + (version.empty() ? std::string() : "/" + config.webhook.secret);
  request.body = json_text(secret_of(config, *made, version));
  const KubeRequest asked = request;
  const Result<KubeResponse> response = co_await client.request(std::move(request));
  if (!response) co_return response.error();
  if (response->status == 409) co_return Error{"another replica has just made the Secret; reading it next", asked.path};
  if (!response->ok()) co_return refusal_of(asked, *response);
  log.info("webhook_authority_made", {{"secret", config.config_map.ns + "/" + config.webhook.secret}});
  co_return *std::move(made);
}

asio::awaitable<Result<void>> Webhooks::Impl::announce(std::string resource, std::string certificate) {
  KubeRequest request;
  request.path = std::string(kRegistration) + resource + "/" + config.webhook.configuration;
  const KubeRequest asked = request;
  const Result<KubeResponse> response = co_await client.request(std::move(request));
  if (!response) co_return response.error();
  if (!response->ok()) co_return refusal_of(asked, *response);
  const Result<Node> configuration = read_object(*response, asked.path);
  if (!configuration) co_return configuration.error();
  const Node patch = bundle_patch(*configuration, certificate);
  if (patch.items.empty()) co_return Result<void>();
  KubeRequest change;
  change.method = KubeMethod::patch;
  change.path = asked.path;
  change.content_type = "application/json-patch+json";
  change.body = json_text(patch);
  const KubeRequest sent = change;
  const Result<KubeResponse> changed = co_await client.request(std::move(change));
  if (!changed) co_return changed.error();
  if (!changed->ok()) co_return refusal_of(sent, *changed);
  log.info("webhook_announced", {{"configuration", resource + "/" + config.webhook.configuration}});
  co_return Result<void>();
}

bool Webhooks::Impl::should_have_sidecar(const ClusterStore& store, const Pod& pod) const {
  if (pod.workload.host_network || pod.ended() || pod.terminating) return false;
  const auto is = [](const Labels& labels, std::string_view value) {
    const auto found = labels.find(inject_label);
    return found != labels.end() && found->second == value;
  };
  if (is(pod.labels, "disabled") && settings.allow_opt_out) return false;
  if (is(pod.labels, "enabled")) return true;
  const auto space = store.view().namespaces.find(pod.workload.ns);
  return space != store.view().namespaces.end() && is(space->second.labels, "enabled");
}

void Webhooks::Impl::look_at(const ClusterStore& store, const ObjectKey& key) {
  const auto found = store.view().pods.find(key);
  const bool is_bare = found != store.view().pods.end() && !found->second.workload.meshed && should_have_sidecar(store, found->second);
  if (!is_bare) {
    uninjected.erase(key);
    return;
  }
  const std::string& uid = found->second.workload.uid;
  const auto [entry, is_new] = uninjected.try_emplace(key, uid);
  if (!is_new && entry->second == uid) return;
  entry->second = uid;
  EventNote note;
  note.warning = true;
  note.reason = "NoSidecar";
  note.action = "Inject";
  note.note =
      "this pod should have a sidecar and has none: it was made before its namespace was labelled, or past the webhook; make it anew";
  recorder.record({"v1", "Pod", key.ns, key.name, uid}, std::move(note));
}

Result<std::unique_ptr<Webhooks>> Webhooks::make(asio::io_context& io, KubeClient& client, EventRecorder& recorder,
                                                 const ControlConfig& config, Log& log) {
  const auto text = read_file(config.webhook.settings, kPemBytes);
  if (!text) return text.error();
  InjectionSettings start;
  start.trust_domain = config.mesh.trust_domain;
  auto settings = injection_settings_table().parse(*text, config.webhook.settings, std::move(start));
  if (!settings) return settings.error();
  if (auto valid = validate(*settings); !valid) return Error{valid.error().text(), config.webhook.settings};
  auto socket = listen_on_port(config.listen.webhook, "listen.webhook");
  if (!socket) return socket.error();
  return std::unique_ptr<Webhooks>(
      new Webhooks(std::make_shared<Impl>(io, client, recorder, config, log, *std::move(settings), *std::move(socket))));
}

Webhooks::Webhooks(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}

Webhooks::~Webhooks() {
  impl_->stopped = true;
  impl_->timer.cancel();
}

void Webhooks::start() { asio::co_spawn(impl_->io, impl_->run(), asio::detached); }

void Webhooks::use_roots(const std::string& pem) {
  if (pem.empty() || pem == impl_->settings.trust_roots) return;
  impl_->settings.trust_roots = pem;
  impl_->server.use_settings(impl_->settings);
}

void Webhooks::look_for_uninjected(const ClusterStore& store, const Changes& changes) {
  for (const ObjectKey& key : changes.pods) impl_->look_at(store, key);
  const auto& pods = store.view().pods;
  for (const std::string& ns : changes.namespaces) {
    for (auto it = pods.lower_bound(ObjectKey{ns, {}}); it != pods.end() && it->first.ns == ns; ++it) impl_->look_at(store, it->first);
  }
}

std::string Webhooks::why_not_ready() const {
  if (impl_->server.ready()) return {};
  if (!impl_->error.empty()) return "the webhook has no certificate: " + impl_->error;
  return impl_->settings.trust_roots.empty() ? "the webhook has no trust roots to put into pods" : "the webhook has no certificate yet";
}

WebhookServer::Stats Webhooks::stats() const { return impl_->server.stats(); }
std::size_t Webhooks::uninjected() const { return impl_->uninjected.size(); }

}  // namespace postern
