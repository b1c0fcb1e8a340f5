#include "control/federation.hpp"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <random>
#include <utility>

#include "base/document_files.hpp"
#include "certs/svid.hpp"
#include "control/kube_client.hpp"
#include "control/resource_hash.hpp"
#include "control/webhook_certificate.hpp"

namespace postern {

namespace asio = boost::asio;
using std::chrono::seconds;

namespace {

constexpr auto as_values = asio::as_tuple(asio::use_awaitable);
constexpr seconds deadline{10};  // of one retrieval
constexpr seconds shortest_interval{5};
constexpr seconds longest_interval{3'600};
constexpr seconds usual_interval{300};
constexpr seconds first_back_off{1};  // until there is a first bundle; after that the next interval is soon enough

}  // namespace

seconds refresh_interval(const std::optional<seconds>& hint) {
  return std::clamp(hint.value_or(usual_interval), shortest_interval, longest_interval);
}

Result<std::unique_ptr<Federation>> Federation::make(asio::io_context& io, std::vector<FederatedBundle> bundles, Log& log,
                                                     std::function<void(Resources)> use) {
  auto files = FederatedFiles::make(bundles);
  if (!files) return files.error();
  std::unique_ptr<Federation> made(new Federation(io, log, std::move(use), *std::move(files)));
  for (FederatedBundle& one : bundles) {
    if (one.endpoint.empty()) continue;
    made->endpoints_.push_back(std::make_unique<Endpoint>());
    made->endpoints_.back()->from = std::move(one);
  }
  return made;
}

void Federation::start() {
  read_files();
  publish();
  if (files_.fd() >= 0) {
    files_fd_ = std::make_unique<asio::posix::stream_descriptor>(io_, ::dup(files_.fd()));
    asio::co_spawn(io_, watch_files(), asio::detached);
  }
  for (const auto& endpoint : endpoints_) asio::co_spawn(io_, ask_again_and_again(*endpoint), asio::detached);
}

void Federation::read_files() {
  const bool changed = files_.poll();
  for (const std::string& warning : files_.take_warnings()) log_.warning("federated_bundle_warning", {{"what", warning}});
  if (changed) publish();
}

asio::awaitable<void> Federation::watch_files() {
  while (true) {
    const auto [error] = co_await files_fd_->async_wait(asio::posix::descriptor_base::wait_read, as_values);
    if (error) co_return;
    read_files();
  }
}

asio::awaitable<void> Federation::ask_again_and_again(Endpoint& endpoint) {
  asio::steady_timer pause(io_);
  std::mt19937 random{std::random_device()()};
  seconds back_off = first_back_off;
  while (true) {
    const auto answer = co_await retrieve(endpoint);
    if (take(endpoint, answer)) publish();
    const seconds interval = refresh_interval(endpoint.held.refresh_hint);
    const seconds wait = endpoint.known ? interval : std::min(interval, std::exchange(back_off, back_off * 2));
    // Not more often than asked for, and the replicas of one control plane not all at once.
    const auto most = std::chrono::duration_cast<std::chrono::milliseconds>(wait).count();
    pause.expires_after(std::chrono::milliseconds(std::uniform_int_distribution<std::int64_t>(most, most + most / 10)(random)));
    const auto [error] = co_await pause.async_wait(as_values);
    if (error) co_return;
  }
}

// True where the bundle is another one now, or is known for the first time.
bool Federation::take(Endpoint& endpoint, const Result<std::string>& answer) {
  const std::string& domain = endpoint.from.domain.text();
  Result<bool> accepted = answer ? Result<bool>(false) : Result<bool>(answer.error());
  if (answer) {
    // PEM says neither sequence nor refresh hint, and is no bundle of an endpoint (section 5.2.1.4).
    const bool json = answer->find_first_not_of(" \t\r\n") != std::string::npos && (*answer)[answer->find_first_not_of(" \t\r\n")] == '{';
    accepted =
        json ? accept_bundle(endpoint.held, *answer, endpoint.from.domain) : Result<bool>(Error{"the answer is no SPIFFE bundle", {}});
  }
  if (!accepted) {
    ++endpoint.refused;
    const std::string fault = accepted.error().text();
    if (fault != std::exchange(endpoint.fault, fault)) {
      log_.error("federated_bundle_refused", {{"trust_domain", domain},
                                              {"endpoint", endpoint.from.endpoint},
                                              {"error", fault},
                                              {"kept", endpoint.held.bundle ? "the last good bundle" : "none: nobody of it is trusted"}});
    }
    return false;
  }
  endpoint.fault.clear();
  endpoint.retrieved_at = std::chrono::system_clock::now();
  const bool first = !std::exchange(endpoint.known, true);
  if (*accepted || first) {
    const HeldBundle& held = endpoint.held;
    log_.info("federated_bundle_retrieved", {{"trust_domain", domain},
                                             {"authorities", std::to_string(held.bundle ? held.bundle->authorities().size() : 0)},
                                             {"sequence", held.sequence ? std::to_string(*held.sequence) : "none"},
                                             {"next_in_s", std::to_string(refresh_interval(held.refresh_hint).count())}});
  }
  return *accepted || first;
}

// SPIFFE Federation section 5.2.2.4: the latest bundle of the endpoint's own trust domain; before there is one, the file that was given.
Result<TrustBundleSet> Federation::bundles_for(const Endpoint& endpoint) const {
  TrustBundleSet bundles;
  const auto domain = TrustDomain::parse(endpoint.from.endpoint_id.trust_domain());
  if (!domain) return domain.error();
  for (const auto& other : endpoints_) {
    if (other->from.domain == *domain && other->held.bundle) bundles.add(other->held.bundle);
  }
  for (const FederatedFiles::File& file : files_.files()) {
    if (file.domain == *domain && file.held.bundle) bundles.add(file.held.bundle);
  }
  if (bundles.size() > 0) return bundles;
  const auto text = read_file(endpoint.from.endpoint_bundle, max_pem_bytes);
  if (!text) return text.error();
  auto given = TrustBundle::parse(*text, *domain);
  if (!given) return Error{given.error().message, endpoint.from.endpoint_bundle};
  bundles.add(*std::move(given));
  return bundles;
}

asio::awaitable<Result<std::string>> Federation::retrieve(const Endpoint& endpoint) const {
  KubeConfig server;
  server.source = "the system's certificate store";
  server.host = endpoint.from.url.host;
  server.port = endpoint.from.url.port;
  server.server_name = server.host;
  server.authority.file = endpoint.from.endpoint_roots;
  if (endpoint.from.profile == FederatedBundle::Profile::https_spiffe) {
    auto bundles = bundles_for(endpoint);
    if (!bundles) co_return bundles.error();
    server.spiffe_server = std::make_shared<SpiffeServer>(SpiffeServer{endpoint.from.endpoint_id, *std::move(bundles), {}});
  }
  KubeClient client(io_, std::move(server));
  KubeRequest request;
  request.path = endpoint.from.url.path.starts_with('/') ? endpoint.from.url.path : "/" + endpoint.from.url.path;
  request.deadline = deadline;
  request.body_bytes = max_pem_bytes;
  auto response = co_await client.request(std::move(request));
  if (!response) co_return response.error();
  // A redirect is not followed: what the endpoint is, is configured.
  if (response->status != 200) co_return Error{"the endpoint answered " + std::to_string(response->status) + "; expected 200", {}};
  co_return std::move(response->body);
}

void Federation::publish() {
  Resources resources;
  const auto add = [&](const TrustDomain& domain, const HeldBundle& held, bool known) {
    const std::string name = federated_bundle_resource_name(domain.text());
    if (held.bundle) {
      resources.emplace(name, make_resource(name, encode(FederatedBundleRecord{held.sequence, authorities_pem(*held.bundle)})));
    } else if (!known) {
      resources.emplace(name, nullptr);
    }
  };
  for (const FederatedFiles::File& file : files_.files()) add(file.domain, file.held, file.withdrawn);
  for (const auto& endpoint : endpoints_) add(endpoint->from.domain, endpoint->held, endpoint->known);
  use_(std::move(resources));
}

std::vector<Federation::Facts> Federation::facts() const {
  std::vector<Facts> all;
  const auto add = [&](const TrustDomain& domain, const HeldBundle& held, std::uint64_t refused) -> Facts& {
    return all.emplace_back(Facts{.trust_domain = domain.text(),
                                  .authorities = held.bundle ? held.bundle->authorities().size() : 0,
                                  .sequence = held.sequence,
                                  .refused = refused});
  };
  for (const FederatedFiles::File& file : files_.files()) add(file.domain, file.held, file.refused);
  for (const auto& endpoint : endpoints_) {
    add(endpoint->from.domain, endpoint->held, endpoint->refused).retrieved_at_seconds =
        std::chrono::duration<double>(endpoint->retrieved_at.time_since_epoch()).count();
  }
  return all;
}

}  // namespace postern
