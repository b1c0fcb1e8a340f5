// AuthorityStore: the authority in its Secret: made once, however many replicas start together; read again all the time; rotated step by
// step by whichever replica gets there first (each step is one conditional replacement). Coroutines on one io_context thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "base/result.hpp"
#include "control/authority_state.hpp"
#include "control/kube_client.hpp"

namespace postern {

class AuthorityStore {
 public:
  struct Settings {
    std::string ns;
    std::string secret;        // the state's
    std::string given_secret;  // tls.crt, tls.key, ca.crt as cert-manager writes them, in the same namespace; empty: self-created
    TrustDomain domain;
    std::chrono::seconds svid_ttl{3600};
    std::chrono::seconds lifetime{365 * 24 * 3600};  // of what is self-created; rotated by itself after two thirds of it
    std::string replica;
  };
  struct Handlers {
    std::function<void()> changed;                                 // authority() or bundle() is another one
    std::function<std::uint64_t(std::uint64_t sequence)> lagging;  // sidecars seen here that have not acknowledged that bundle
  };

  // REQUIRES: io, client and log outlive this; `io` is run by one thread.
  AuthorityStore(boost::asio::io_context& io, KubeClient& client, Settings settings, Handlers handlers, Log& log);
  void start();
  void stop();

  // What signs now; null: nothing has been read yet, or it was read so long ago that another replica may have gone two steps on.
  std::shared_ptr<const Authority> authority() const;
  // The trust bundle in force; null: nothing has been read yet.
  const NumberedBundle* bundle() const { return held_ ? &held_->bundle : nullptr; }
  const std::string& error() const { return error_; }  // of the latest look; empty: all is well

  // A new root is published, and acknowledgements of it are waited for.
  bool rotating() const { return held_ && held_->state.phase == AuthorityState::Phase::publishing; }
  // Begins a rotation soon. Refused while there is none to rotate, one is under way, or a given authority is used.
  Result<void> rotate();
  // Looks at the Secret at once: an acknowledgement may be the one that was missing.
  void look_soon();
  std::string status_json(const std::vector<std::string>& lagging) const;  // GET /ca
  std::uint64_t steps() const { return steps_; }                           // taken by this replica

 private:
  using SteadyClock = std::chrono::steady_clock;
  struct Held {
    AuthorityState state;
    std::shared_ptr<const Authority> authority;
    NumberedBundle bundle;
  };
  struct Read {  // one look at the Secret
    AuthorityState state;
    std::string version;
    AckReports reports;
  };

  boost::asio::awaitable<void> run();
  boost::asio::awaitable<Result<void>> look();
  boost::asio::awaitable<Result<std::optional<Read>>> read();
  boost::asio::awaitable<Result<AuthorityState>> first_state();
  boost::asio::awaitable<Result<void>> create();
  boost::asio::awaitable<Result<void>> write(const AuthorityState& state, const Read& before);
  boost::asio::awaitable<Result<void>> report(const Read& read);
  boost::asio::awaitable<Result<std::optional<AuthorityState>>> next_of(const Read& read);
  boost::asio::awaitable<Result<std::optional<std::pair<AuthorityFiles, std::string>>>> given();
  Result<void> adopt(const Read& read);
  boost::asio::awaitable<Result<KubeResponse>> ask(KubeMethod method, std::string path, std::string body, std::string_view content_type);
  std::string path_of(const std::string& name) const;

  boost::asio::io_context& io_;
  KubeClient& client_;
  const Settings settings_;
  const Handlers handlers_;
  Log& log_;
  const std::string run_;  // the name of this run of this replica
  const std::chrono::milliseconds interval_;
  boost::asio::steady_timer timer_;
  bool stopped_ = false;
  bool look_now_ = false;
  bool rotate_wanted_ = false;
  std::optional<Held> held_;
  AckReports reports_;
  std::optional<SteadyClock::time_point> fresh_;  // when the Secret was read last
  std::optional<AckReport> reported_;
  std::string error_;
  std::uint64_t steps_ = 0;
};

}  // namespace postern
