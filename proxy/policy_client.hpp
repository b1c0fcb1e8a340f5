// PolicyClient: the stream from the control plane: connects to any replica, applies, acknowledges what is enforced, keeps the last good
// state (architecture section 5). A thread of its own; no connection ever waits for it, but for a look-up.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "certs/svid_source.hpp"
#include "proxy/config.hpp"
#include "proxy/held_policy.hpp"
#include "proxy/lookup.hpp"

namespace postern {

using FederatedBundles = std::map<std::string, FederatedBundleRecord>;  // by trust domain

// Where policy goes: the server. Called from the client's thread, or from make().
class PolicyReceiver {
 public:
  virtual ~PolicyReceiver() = default;
  // Hands the snapshot to every worker; `enforced` is called, on any thread, when each has adopted it and decided its live connections
  // again.
  virtual void enforce(std::shared_ptr<const PolicySnapshot> snapshot, std::function<void()> enforced) = 0;
  // Hands the mesh's roots to the source of the identity; `adopted` is called, on any thread, when every worker verifies with them (at once
  // where that source has its roots from elsewhere).
  virtual void adopt_roots(NumberedBundle roots, std::function<void()> adopted) = 0;
  // Has the workers verify with these bundles of other trust domains, and with no others of the control plane; `adopted` as above.
  virtual void adopt_federated(FederatedBundles bundles, std::function<void()> adopted) = 0;
  // What could not be taken, for people; empty: all is well again.
  virtual void policy_refused(const std::string& error) = 0;
  // The addresses of the other ends of live connections, gathered from the workers; `answer` is called on any thread.
  virtual void peers_in_use(std::function<void(AddressSet)> answer) = 0;
};

class PolicyClient {
 public:
  // Puts the state file in force, where there is a usable one, and begins to connect. REQUIRES: receiver and log outlive this.
  static Result<std::unique_ptr<PolicyClient>> make(const Config& config, PolicyReceiver& receiver, Log& log);
  ~PolicyClient();
  PolicyClient(const PolicyClient&) = delete;
  PolicyClient& operator=(const PolicyClient&) = delete;

  // Thread-safe. The next stream uses it; the present one goes on until its own SVID's end.
  void adopt_identity(const X509ContextPtr& identity);
  Lookups& lookups();

  struct Facts {
    bool connected = false;            // and in step: the first update has been enforced
    double confirmed_seconds_ago = 0;  // since the control plane last showed that the policy in force is the current one
    std::uint64_t updates = 0;         // enforced
    std::uint64_t refused = 0;         // NACKs and states that were too old
    std::uint64_t streams = 0;         // begun
    std::uint64_t lookups = 0;
  };
  Facts facts() const;

 private:
  class Impl;
  explicit PolicyClient(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern
