#include "proxy/control_source.hpp"

#include <openssl/crypto.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <fstream>
#include <mutex>
#include <random>
#include <thread>

#include "base/back_off.hpp"
#include "base/descriptor.hpp"
#include "base/thread.hpp"
#include "certs/authority.hpp"
#include "certs/certificate_builder.hpp"
#include "certs/csr.hpp"
#include "certs/rotation.hpp"
#include "proxy/identity_state.hpp"
#include "proxy/signing_client.hpp"
#include "proxy/state_file.hpp"

namespace postern {

namespace {

namespace asio = boost::asio;
using std::chrono::milliseconds;
using std::chrono::system_clock;

constexpr milliseconds first_back_off{200};
constexpr milliseconds longest_back_off{15'000};
constexpr std::chrono::seconds skew{60};  // as between sidecars (TlsSettings)
constexpr std::size_t token_bytes = 16U << 10;

Result<std::string> read_text(const std::string& path, std::size_t most) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return Error{"cannot be opened", path};
  std::string text(most + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<std::size_t>(file.gcount()));
  if (text.size() > most) return Error{"is longer than " + std::to_string(most) + " bytes", path};
  if (text.empty()) return Error{"is empty", path};
  return text;
}

void wipe(std::string& secret) {
  OPENSSL_cleanse(secret.data(), secret.size());
  secret.clear();
}

}  // namespace

class ControlSource::Impl {
 public:
  Impl(const Config& config, Log& log, SpiffeId control)
      : config_(config), log_(log), control_(std::move(control)), event_(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {}

  ~Impl() {
    io_.stop();
    if (thread_.joinable()) thread_.join();
    wipe(state_.key);
  }

  Result<void> begin();
  void start() {
    asio::co_spawn(io_, run(), asio::detached);
    thread_ = start_without_signals("identity", [this] { io_.run(); });
  }

  int fd() const { return event_.get(); }
  std::optional<Result<X509ContextPtr>> poll();
  Result<void> adopt_roots(const NumberedBundle& roots);
  std::vector<std::string> take_warnings() {
    const std::lock_guard lock(mutex_);
    return std::exchange(warnings_, {});
  }
  std::string describe() const {
    std::string out = "control plane:";
    for (const std::string& address : config_.identity.control_plane.addresses) out.append(" ").append(address);
    return out;
  }
  // Nothing: at once.
  std::optional<SystemTime> next_renewal() {
    const std::lock_guard lock(mutex_);
    return renew_at_ == SystemTime{} ? std::nullopt : std::optional(renew_at_);
  }

 private:
  asio::awaitable<void> run();
  asio::awaitable<Result<void>> renew();
  Result<void> take(const SigningAnswer& answer, const KeyPtr& key);
  Result<X509ContextPtr> context_of(const IdentityState& state, const char* where) const;
  milliseconds until_renewal();
  void publish(const X509ContextPtr& context, IdentityState state);
  void tell(Result<X509ContextPtr> news);
  void save();

  const Config& config_;
  Log& log_;
  const SpiffeId control_;
  const Descriptor event_;
  std::mt19937_64 random_{std::random_device()()};  // of the thread

  std::mutex mutex_;  // of all that follows up to the io_context
  std::mt19937_64 renewal_random_{std::random_device()()};
  IdentityState state_;
  SystemTime renew_at_{};  // epoch: at once
  SystemTime ends_{};
  std::optional<Result<X509ContextPtr>> news_;
  std::string last_error_;
  std::vector<std::string> warnings_;

  asio::io_context io_{1};
  std::thread thread_;
};

Result<void> ControlSource::Impl::begin() {
  const auto& settings = config_.identity.control_plane;
  auto roots = settings.roots.empty() ? read_text(settings.roots_file, max_pem_bytes) : Result<std::string>(settings.roots);
  if (!roots) return roots.error();
  const auto read = TrustBundle::parse(*roots, config_.mesh.trust_domain);
  if (!read) return Error{read.error().text(), settings.roots.empty() ? settings.roots_file : "identity.controlPlane.roots"};
  state_.bundle = {0, *std::move(roots)};

  const std::string& folder = config_.control.state_dir;
  if (folder.empty()) return {};
  const auto bytes = read_state_file(folder, identity_state_name, identity_state_bytes);
  auto kept = !bytes ? Result<IdentityState>(bytes.error()) : !*bytes ? Result<IdentityState>(Error{}) : decode_identity_state(**bytes);
  if (bytes && !*bytes) return {};
  if (kept && !TrustBundle::parse(kept->bundle.roots, config_.mesh.trust_domain)) kept = Error{"its roots cannot be read", {}};
  if (!kept) {
    warnings_.push_back("the kept identity is not used: " + kept.error().text());
    return {};
  }
  state_.bundle = kept->bundle;
  auto context = context_of(*kept, identity_state_name.data());
  if (!context) {
    warnings_.push_back("the kept SVID is not used: " + context.error().text());
    return {};
  }
  log_.info("identity_state_loaded", {{"serial", (*context)->svid.serial}, {"ends", utc_text((*context)->svid.not_after)}});
  publish(*context, *std::move(kept));
  return {};
}

// As our peers will see it, and ours: the SVID of another pod would have us refused everywhere.
Result<X509ContextPtr> ControlSource::Impl::context_of(const IdentityState& state, const char* where) const {
  auto svid = parse_svid(state.chain, state.key);
  if (!svid) return Error{svid.error().text(), where};
  const auto pod = svid->id.pod();
  if (!pod || pod->ns != config_.workload.ns || pod->pod != config_.workload.name || pod->uid.empty()) {
    return Error{"it is that of " + svid->id.text() + ", this is the sidecar of " + config_.workload.ns + "/" + config_.workload.name +
                     "; is identity.controlPlane.tokenFile this pod's own?",
                 where};
  }
  auto bundle = TrustBundle::parse(state.bundle.roots, config_.mesh.trust_domain);
  if (!bundle) return Error{bundle.error().text(), where};
  TrustBundleSet bundles;
  bundles.add(*std::move(bundle));
  const auto verified = verify_peer(borrow(svid->chain).get(), bundles, TlsEnd::both, system_clock::now(), skew);
  if (!verified.peer) return Error{std::string(postern::describe(verified.error)) + " (" + verified.detail + ")", where};
  if (svid->not_after <= system_clock::now()) return Error{"the SVID has expired at " + utc_text(svid->not_after), where};
  return std::make_shared<const X509Context>(X509Context{*std::move(svid), std::move(bundles)});
}

// REQUIRES: mutex_ is held, or the thread has not started.
void ControlSource::Impl::tell(Result<X509ContextPtr> news) {
  if (!news && news_ && *news_) return;  // a context that nobody has taken yet is worth more than a complaint
  news_ = std::move(news);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(event_.get(), &one, sizeof one);  // full: it is readable anyway
}

// REQUIRES: as tell()
void ControlSource::Impl::publish(const X509ContextPtr& context, IdentityState state) {
  renew_at_ = renewal_time(context->svid.not_before + not_before_skew, context->svid.not_after, renewal_random_);
  ends_ = context->svid.not_after;
  last_error_.clear();
  wipe(state_.key);
  state_ = std::move(state);
  tell(context);
}

std::optional<Result<X509ContextPtr>> ControlSource::Impl::poll() {
  std::uint64_t count = 0;
  [[maybe_unused]] const ssize_t got = ::read(event_.get(), &count, sizeof count);
  const std::lock_guard lock(mutex_);
  return std::exchange(news_, std::nullopt);
}

Result<void> ControlSource::Impl::adopt_roots(const NumberedBundle& roots) {
  const std::lock_guard lock(mutex_);
  if (roots.sequence <= state_.bundle.sequence) return {};
  IdentityState next = state_;
  next.bundle = roots;
  if (const auto read = TrustBundle::parse(roots.roots, config_.mesh.trust_domain); !read) return read.error();
  log_.info("trust_bundle_adopted", {{"bundle_sequence", std::to_string(roots.sequence)}});
  if (next.chain.empty()) {
    state_ = std::move(next);
    save();
    return {};
  }
  auto context = context_of(next, "the SVID in use");
  if (context) {
    const SystemTime renew_at = renew_at_;
    publish(*context, std::move(next));
    renew_at_ = renew_at;
  } else {
    // Our own SVID's authority is withdrawn: a new SVID brings the new bundle with it.
    warnings_.push_back("the SVID in use is not of the new trust bundle, and is renewed at once: " + context.error().text());
    state_.bundle = roots;
    renew_at_ = {};
  }
  save();
  return {};
}

// REQUIRES: as tell()
void ControlSource::Impl::save() {
  if (config_.control.state_dir.empty()) return;
  std::string bytes = encode_identity_state(state_);
  const auto written = write_state_file(config_.control.state_dir, identity_state_name, bytes);
  wipe(bytes);
  if (!written) warnings_.push_back("the identity is not kept for a restart: " + written.error().text());
}

milliseconds ControlSource::Impl::until_renewal() {
  const std::lock_guard lock(mutex_);
  // Looked at again and again: what adopt_roots() decides, or a clock that is set, moves it.
  const auto left = std::chrono::ceil<milliseconds>(renew_at_ - system_clock::now());
  return std::clamp<milliseconds>(left, milliseconds(0), milliseconds(1'000));
}

asio::awaitable<void> ControlSource::Impl::run() {
  asio::steady_timer timer(io_);
  BackOff back_off(first_back_off, longest_back_off);
  while (true) {
    if (const milliseconds left = until_renewal(); left.count() > 0) {
      timer.expires_after(left);
      co_await timer.async_wait(asio::use_awaitable);
      continue;
    }
    auto renewed = co_await renew();
    if (renewed) {
      back_off.reset();
      continue;
    }
    {
      const std::lock_guard lock(mutex_);
      const std::string text = renewed.error().text();
      // What is only late is no news for long: it is said once for each reason. Until its end, the SVID is as good as before.
      if (text != std::exchange(last_error_, text)) tell(Error{"cannot get an SVID from the control plane: " + text, {}});
    }
    timer.expires_after(back_off.next(random_));
    co_await timer.async_wait(asio::use_awaitable);
  }
}

asio::awaitable<Result<void>> ControlSource::Impl::renew() {
  const auto& settings = config_.identity.control_plane;
  SigningRequest request;
  auto token = read_text(settings.token_file, token_bytes);
  if (!token) co_return token.error();
  token->erase(std::remove_if(token->begin(), token->end(), [](unsigned char c) { return c <= ' ' || c == 0x7F; }), token->end());
  request.token = *std::move(token);
  const KeyPtr key = new_p256_key();
  if (!key) co_return openssl_error("cannot make a key");
  auto csr = make_csr(key.get());
  if (!csr) co_return csr.error();
  request.csr = *std::move(csr);
  std::string roots;
  {
    const std::lock_guard lock(mutex_);
    request.bundle_sequence = state_.bundle.sequence;
    roots = state_.bundle.roots;
  }
  auto bundle = TrustBundle::parse(roots, config_.mesh.trust_domain);
  if (!bundle) co_return bundle.error();
  auto answer = co_await ask_to_sign(settings.addresses, *std::move(bundle), control_, std::move(request), random_);
  if (!answer) co_return answer.error();
  co_return take(*answer, key);
}

Result<void> ControlSource::Impl::take(const SigningAnswer& answer, const KeyPtr& key) {
  const std::lock_guard lock(mutex_);
  IdentityState next;
  next.key = pem_of(key.get());
  next.chain = answer.chain;
  // What the stream brought meanwhile may be newer than what a replica that lags has sent along.
  next.bundle = answer.bundle.sequence >= state_.bundle.sequence ? answer.bundle : state_.bundle;
  auto context = context_of(next, "the SVID that the control plane sent");
  if (!context) return context.error();
  publish(*context, std::move(next));
  save();
  return {};
}

ControlSource::ControlSource(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
ControlSource::~ControlSource() = default;

Result<std::unique_ptr<ControlSource>> ControlSource::make(const Config& config, Log& log) {
  auto control = SpiffeId::parse("spiffe://" + config.mesh.trust_domain.text() + "/postern/control");
  if (!control) return control.error();
  auto impl = std::make_unique<Impl>(config, log, *std::move(control));
  if (impl->fd() < 0) return Error{"eventfd: no descriptor", {}};
  if (auto begun = impl->begin(); !begun) return begun.error();
  impl->start();
  return std::unique_ptr<ControlSource>(new ControlSource(std::move(impl)));
}

int ControlSource::fd() const { return impl_->fd(); }
std::optional<Result<X509ContextPtr>> ControlSource::poll() { return impl_->poll(); }
Result<void> ControlSource::adopt_roots(const NumberedBundle& roots) { return impl_->adopt_roots(roots); }
std::vector<std::string> ControlSource::take_warnings() { return impl_->take_warnings(); }
std::string ControlSource::describe() const { return impl_->describe(); }
std::optional<SystemTime> ControlSource::next_renewal() const { return impl_->next_renewal(); }

}  // namespace postern
