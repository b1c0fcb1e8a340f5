#include "control/authority_store.hpp"

#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>
#include <array>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <utility>

#include "base/base64.hpp"
#include "base/document.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr std::string_view merge_patch = "application/merge-patch+json";
constexpr std::string_view state_key = "authority.json";
constexpr std::string_view roots_key = "ca.crt";  // for people, and for what writes roots into pods
constexpr std::string_view report_prefix = "authority.postern.dev/";
constexpr milliseconds longest_interval{2'000};
constexpr milliseconds longest_margin{60'000};
constexpr DocumentLimits secret_limits{.bytes = 2U << 20, .nodes = 20'000, .depth = 16, .documents = 1, .scalar_bytes = 1U << 20};

std::string hex(const unsigned char* bytes, std::size_t size) {
  constexpr std::string_view digits = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < size; ++i) {
    out += digits[bytes[i] >> 4U];
    out += digits[bytes[i] & 15U];
  }
  return out;
}

std::string name_of_run() {
  std::array<unsigned char, 8> bytes{};
  RAND_bytes(bytes.data(), static_cast<int>(bytes.size()));
  return hex(bytes.data(), bytes.size());
}

std::string digest_of(const AuthorityFiles& files) {
  std::array<unsigned char, SHA256_DIGEST_LENGTH> digest{};
  const std::string all = files.roots + '\0' + files.chain + '\0' + files.key;
  SHA256(reinterpret_cast<const unsigned char*>(all.data()), all.size(), digest.data());
  return hex(digest.data(), 16);
}

std::string text_at(const Node& node, std::initializer_list<std::string_view> path) {
  const Node* at = &node;
  for (const std::string_view name : path) {
    at = at->find(name);
    if (at == nullptr) return {};
  }
  return at->is(Node::Kind::string) ? at->scalar : std::string();
}

std::string datum(const Node& secret, std::string_view key) { return from_base64(text_at(secret, {"data", key})).value_or(std::string()); }

AckReports reports_in(const Node& secret) {
  AckReports reports;
  const Node* metadata = secret.find("metadata");
  const Node* annotations = metadata == nullptr ? nullptr : metadata->find("annotations");
  if (annotations == nullptr) return reports;
  for (const auto& [name, value] : annotations->fields) {
    if (!name.starts_with(report_prefix)) continue;
    auto report = decode_ack_report(value.scalar);
    // One that cannot be read is nobody's: whoever writes reports writes it again.
    if (report) reports.emplace(name.substr(report_prefix.size()), *std::move(report));
  }
  return reports;
}

void write_data(JsonWriter& json, const AuthorityState& state) {
  json.key("data").begin_object().field(state_key, to_base64(encode(state)));
  json.field(roots_key, to_base64(bundle_of(state).roots)).end_object();
}

// A time that no replica's clock, and no look that it has not taken yet, is off by.
milliseconds margin_of(std::chrono::seconds ttl) { return std::min<milliseconds>(longest_margin, ttl); }

}  // namespace

AuthorityStore::AuthorityStore(asio::io_context& io, KubeClient& client, Settings settings, Handlers handlers, Log& log)
    : io_(io),
      client_(client),
      settings_(std::move(settings)),
      handlers_(std::move(handlers)),
      log_(log),
      run_(name_of_run()),
      interval_(std::clamp<milliseconds>(settings_.svid_ttl / 20, milliseconds(100), longest_interval)),
      timer_(io) {}

void AuthorityStore::start() { asio::co_spawn(io_, run(), asio::detached); }

void AuthorityStore::stop() {
  stopped_ = true;
  timer_.cancel();
}

std::shared_ptr<const Authority> AuthorityStore::authority() const {
  if (!held_ || !fresh_ || !reported_) return nullptr;
  // Beyond this the old roots could be withdrawn under an SVID that is signed now: the step waits for margin_of().
  if (SteadyClock::now() - *fresh_ > margin_of(settings_.svid_ttl) / 2) return nullptr;
  // Nor is a replica that cannot tell what it has seen waited for by the others.
  if (std::chrono::system_clock::now() - reported_->at > signs_after_report(settings_.svid_ttl)) return nullptr;
  return held_->authority;
}

Result<void> AuthorityStore::rotate() {
  if (!held_) return Error{"there is no authority yet: " + error_, {}};
  if (!settings_.given_secret.empty()) {
    return Error{
        "the authority is given by the Secret " + settings_.ns + "/" + settings_.given_secret + "; replace that one, and it is rotated",
        {}};
  }
  if (held_->state.phase != AuthorityState::Phase::steady || rotate_wanted_) return Error{"a rotation is under way already", {}};
  rotate_wanted_ = true;
  look_soon();
  return {};
}

void AuthorityStore::look_soon() {
  look_now_ = true;
  timer_.cancel();
}

asio::awaitable<void> AuthorityStore::run() {
  while (!stopped_ && !client_.closed()) {
    look_now_ = false;
    auto looked = co_await look();
    const std::string error = looked ? std::string() : looked.error().text();
    if (error != error_ && !error.empty()) log_.error("authority_unavailable", {{"error", error}});
    error_ = error;
    if (stopped_) co_return;
    if (look_now_) {
      // What came meanwhile; not at once where looking itself is what fails.
      timer_.expires_after(milliseconds(error.empty() ? 20 : 500));
    } else {
      timer_.expires_after(interval_);
    }
    co_await timer_.async_wait(as_values);
  }
}

std::string AuthorityStore::path_of(const std::string& name) const {
  return "/api/v1/namespaces/" + settings_.ns + "/secrets" + (name.empty() ? "" : "/" + name);
}

asio::awaitable<Result<KubeResponse>> AuthorityStore::ask(KubeMethod method, std::string path, std::string body,
                                                          std::string_view content_type) {
  KubeRequest request;
  request.method = method;
  request.path = std::move(path);
  request.body = std::move(body);
  request.content_type = content_type;
  request.deadline = std::chrono::seconds(10);
  request.body_bytes = secret_limits.bytes;
  const KubeRequest asked = request;
  Result<KubeResponse> response = co_await client_.request(std::move(request));
  if (!response) co_return response.error();
  const bool answered = response->ok() || response->status == 404 || response->status == 409;
  if (!answered) co_return refusal_of(asked, *response);
  co_return response;
}

asio::awaitable<Result<std::optional<AuthorityStore::Read>>> AuthorityStore::read() {
  const std::string path = path_of(settings_.secret);
  auto response = co_await ask(KubeMethod::get, path, {}, "application/json");
  if (!response) co_return response.error();
  if (response->status == 404) co_return std::optional<Read>();
  const auto secret = parse_json(response->body, "the Secret " + settings_.ns + "/" + settings_.secret, secret_limits);
  if (!secret) co_return secret.error();
  auto state = decode_authority_state(datum(secret->root, state_key));
  if (!state) {
    co_return Error{state.error().text() + "; it is left as it is: restore it, or delete the Secret to begin with a new authority",
                    "the Secret " + settings_.ns + "/" + settings_.secret};
  }
  Read out{*std::move(state), text_at(secret->root, {"metadata", "resourceVersion"}), reports_in(secret->root)};
  co_return std::optional<Read>(std::move(out));
}

// The given authority with its digest; nothing where none is configured.
asio::awaitable<Result<std::optional<std::pair<AuthorityFiles, std::string>>>> AuthorityStore::given() {
  using Given = std::optional<std::pair<AuthorityFiles, std::string>>;
  if (settings_.given_secret.empty()) co_return Given();
  const std::string where = "the Secret " + settings_.ns + "/" + settings_.given_secret;
  auto response = co_await ask(KubeMethod::get, path_of(settings_.given_secret), {}, "application/json");
  if (!response) co_return response.error();
  if (response->status == 404) co_return Error{"there is none; authority.givenSecret names it", where};
  const auto secret = parse_json(response->body, where, secret_limits);
  if (!secret) co_return secret.error();
  AuthorityFiles files{datum(secret->root, "ca.crt"), datum(secret->root, "tls.crt"), datum(secret->root, "tls.key")};
  const auto usable = Authority::load(files, settings_.domain, std::chrono::system_clock::now());
  if (!usable) co_return Error{usable.error().text() + " (expected ca.crt, tls.crt and tls.key of a CA)", where};
  std::string digest = digest_of(files);
  co_return Given(std::pair(std::move(files), std::move(digest)));
}

asio::awaitable<Result<AuthorityState>> AuthorityStore::first_state() {
  auto from = co_await given();
  if (!from) co_return from.error();
  AuthorityState state;
  state.since = std::chrono::system_clock::now();
  // Larger than that of an authority that was here before: sidecars take the newer bundle.
  state.sequence = static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::seconds>(state.since.time_since_epoch()).count());
  if (*from) {
    state.active = (*from)->first;
    state.given = (*from)->second;
  } else {
    auto made = Authority::create(settings_.domain, settings_.lifetime, state.since);
    if (!made) co_return made.error();
    state.active = *std::move(made);
  }
  co_return state;
}

asio::awaitable<Result<void>> AuthorityStore::create() {
  // A Secret that somebody deleted is put back: its authority is in use all over the cluster.
  Result<AuthorityState> state = Error{};
  if (held_) {
    log_.error("authority_deleted", {{"secret", settings_.ns + "/" + settings_.secret}, {"then", "it is put back"}});
    state = held_->state;
  } else {
    state = co_await first_state();
  }
  if (!state) co_return state.error();
  JsonWriter json;
  json.begin_object().field("apiVersion", "v1").field("kind", "Secret").field("type", "Opaque");
  json.key("metadata").begin_object().field("name", settings_.secret).field("namespace", settings_.ns);
  // What other replicas have told goes back with it: without it, a rotation would go on without the sidecars that they have seen.
  json.key("annotations").begin_object();
  for (const auto& [run, report] : reports_) json.field(std::string(report_prefix) + run, encode(report));
  json.end_object().end_object();
  write_data(json, *state);
  const std::string path = path_of("");
  std::string body = json.end_object().take();
  auto response = co_await ask(KubeMethod::post, path, std::move(body), "application/json");
  if (!response) co_return response.error();
  if (response->status == 404) co_return Error{"there is no namespace " + settings_.ns + "; authority.namespace names it", path};
  // 409: another replica was first. Its authority is read now, and ours was never anybody's.
  if (response->ok())
    log_.warning("authority_created", {{"secret", settings_.ns + "/" + settings_.secret}, {"given", settings_.given_secret}});
  co_return Result<void>();
}

// The state that the Secret should have next, if it is time for another one.
asio::awaitable<Result<std::optional<AuthorityState>>> AuthorityStore::next_of(const Read& read) {
  const SystemTime now = std::chrono::system_clock::now();
  if (read.state.phase != AuthorityState::Phase::steady) {
    const auto ttl = longest_ttl(settings_.svid_ttl, read.reports);
    co_return next_step(read.state, read.reports, ttl, margin_of(ttl), now);
  }
  auto from = co_await given();
  if (!from) co_return from.error();
  if (*from) {
    if ((*from)->second == read.state.given) co_return std::optional<AuthorityState>();
    co_return std::optional<AuthorityState>(begin_rotation(read.state, (*from)->first, (*from)->second, now));
  }
  const Held& held = *held_;
  const auto lifetime = held.authority->not_after() - held.authority->not_before();
  const bool is_old = now - held.authority->not_before() > lifetime / 3 * 2;
  if (!rotate_wanted_ && !is_old) co_return std::optional<AuthorityState>();
  auto made = Authority::create(settings_.domain, settings_.lifetime, now);
  if (!made) co_return made.error();
  co_return std::optional<AuthorityState>(begin_rotation(read.state, *std::move(made), {}, now));
}

asio::awaitable<Result<void>> AuthorityStore::look() {
  auto found = co_await read();
  if (!found) co_return found.error();
  if (!*found) {
    auto created = co_await create();
    if (!created) co_return created.error();
    found = co_await read();
    if (!found) co_return found.error();
    if (!*found) co_return Error{"the Secret " + settings_.ns + "/" + settings_.secret + " was made, and is not there", {}};
  }
  Read& now_there = **found;
  if (auto adopted = adopt(now_there); !adopted) co_return adopted.error();
  auto told = co_await report(now_there);
  if (!told) co_return told.error();
  auto next = co_await next_of(now_there);
  if (!next) co_return next.error();
  if (!*next) co_return Result<void>();
  auto written = co_await write(**next, now_there);
  co_return written;
}

Result<void> AuthorityStore::adopt(const Read& read) {
  const bool same = held_ && held_->state.sequence == read.state.sequence && held_->state.phase == read.state.phase &&
                    held_->state.active.chain == read.state.active.chain;
  reports_ = read.reports;
  if (!same) {
    auto authority = Authority::load(read.state.active, settings_.domain, std::chrono::system_clock::now());
    if (!authority) return Error{authority.error().text(), "the Secret " + settings_.ns + "/" + settings_.secret};
    auto shared = std::make_shared<const Authority>(*std::move(authority));
    log_.info("authority_in_use", {{"phase", name_of(read.state.phase)},
                                   {"bundle_sequence", std::to_string(read.state.sequence)},
                                   {"signing_serial", shared->serial()},
                                   {"expires", utc_text(shared->not_after())}});
    held_ = Held{read.state, std::move(shared), bundle_of(read.state)};
    if (read.state.phase != AuthorityState::Phase::steady) rotate_wanted_ = false;
  }
  fresh_ = SteadyClock::now();
  handlers_.changed();
  return {};
}

// Only when there is something to say: another bundle, another count, or a report that grows old.
asio::awaitable<Result<void>> AuthorityStore::report(const Read& read) {
  const SystemTime now = std::chrono::system_clock::now();
  AckReport report;
  report.replica = settings_.replica;
  report.sequence = read.state.sequence;
  report.lagging = handlers_.lagging(read.state.sequence);
  report.at = std::chrono::floor<milliseconds>(now);
  report.ttl = settings_.svid_ttl;
  const auto last = read.reports.find(run_);
  const bool said = last != read.reports.end() && last->second.sequence == report.sequence && last->second.lagging == report.lagging &&
                    now - last->second.at < signs_after_report(settings_.svid_ttl) / 2;
  if (said) {
    reported_ = last->second;
    co_return Result<void>();
  }
  JsonWriter json;
  json.begin_object().key("metadata").begin_object().key("annotations").begin_object();
  json.field(std::string(report_prefix) + run_, encode(report));
  std::string body = json.end_object().end_object().end_object().take();
  // What counts no longer is taken away, so that runs that have ended do not pile up.
  std::string ended;
  for (const auto& [run, old] : read.reports) {
    if (run != run_ && now - old.at > 2 * old.ttl + longest_margin) ended += ",\"" + std::string(report_prefix) + run + "\":null";
  }
  body.insert(body.size() - 3, ended);
  const std::string path = path_of(settings_.secret);
  auto response = co_await ask(KubeMethod::patch, path, std::move(body), merge_patch);
  if (!response) co_return response.error();
  if (!response->ok()) co_return Error{"the report was not taken: " + std::to_string(response->status), path};
  reported_ = std::move(report);
  look_now_ = true;  // with it, the next step may be due
  co_return Result<void>();
}

asio::awaitable<Result<void>> AuthorityStore::write(const AuthorityState& state, const Read& before) {
  JsonWriter json;
  json.begin_object().key("metadata").begin_object().field("resourceVersion", before.version).end_object();
  write_data(json, state);
  const std::string path = path_of(settings_.secret);
  std::string body = json.end_object().take();
  auto response = co_await ask(KubeMethod::patch, path, std::move(body), merge_patch);
  if (!response) co_return response.error();
  look_now_ = true;
  // 409: the Secret has changed since it was read; the next look says whether the step is still due.
  if (!response->ok()) co_return Result<void>();
  ++steps_;
  rotate_wanted_ = false;
  log_.warning("authority_rotation", {{"phase", name_of(state.phase)}, {"bundle_sequence", std::to_string(state.sequence)}});
  co_return Result<void>();
}

std::string AuthorityStore::status_json(const std::vector<std::string>& lagging) const {
  JsonWriter json;
  json.begin_object().field("trustDomain", settings_.domain.text()).text("error", error_);
  if (held_) {
    json.field("phase", name_of(held_->state.phase)).field("since", utc_text(held_->state.since));
    json.field("bundleSequence", held_->bundle.sequence).field("signingSerial", held_->authority->serial());
    json.field("expires", utc_text(held_->authority->not_after()));
    json.field("source", settings_.given_secret.empty() ? "self-created" : "the Secret " + settings_.given_secret);
    json.field("svidTtlSeconds", settings_.svid_ttl.count()).field("roots", held_->bundle.roots);
    json.key("reports").begin_array();
    for (const auto& [run, report] : reports_) {
      json.begin_object().field("replica", report.replica).field("run", run).field("bundleSequence", report.sequence);
      json.field("lagging", report.lagging).field("at", utc_text(report.at)).end_object();
    }
    json.end_array().key("lagging").begin_array();
    for (const std::string& pod : lagging) json.value(pod);
    json.end_array();
  }
  return json.end_object().take();
}

}  // namespace postern
