// Server: owns the workers, the access log and the admin thread; watches identity and policy files, or has policy streamed; starts,
// publishes, drains, stops.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "certs/federated_files.hpp"
#include "certs/svid_source.hpp"
#include "proxy/access_log.hpp"
#include "proxy/admin.hpp"
#include "proxy/identity_json.hpp"
#include "proxy/listener.hpp"
#include "proxy/policy_client.hpp"
#include "proxy/policy_directory.hpp"
#include "proxy/worker.hpp"

namespace postern {

class Server final : private AdminBackend, private PolicyReceiver {
 public:
  // `config` is valid. Binds every port; fails where that fails.
  static Result<std::unique_ptr<Server>> make(Config config, Log& log);
  ~Server() override;

  // Blocks until SIGTERM or SIGINT and the end of the drain period (or a second one). Returns the exit status.
  int run();

 private:
  struct Unit;  // a worker, its listeners, its thread

  Server(Config config, Log& log);
  Result<void> bind_listeners();
  Result<void> start_sources();
  // Waits for files, signals and timers; returns when it is time to end.
  Reason supervise();
  bool handle_signal(int signal);
  void read_identity();
  void read_policy();
  void publish_identity(const X509ContextPtr& identity);
  void take_adoptions();
  // Has `work` done on the main thread, which owns the sources of identity, and calls `adopted` when the workers have what came of it.
  void adopt(std::function<void()> work, std::function<void()> adopted);
  void read_federated_files();
  void renew_bundles();

  // PolicyReceiver, called from the policy client's thread; and for policy from files.
  void enforce(std::shared_ptr<const PolicySnapshot> snapshot, std::function<void()> enforced) override;
  void adopt_roots(NumberedBundle roots, std::function<void()> adopted) override;
  void adopt_federated(FederatedBundles bundles, std::function<void()> adopted) override;
  void policy_refused(const std::string& error) override;
  void peers_in_use(std::function<void(AddressSet)> answer) override;

  void begin_drain();
  void stop_workers(Reason reason);

  // AdminBackend, called from the admin thread.
  Readiness readiness() override;
  bool may_scrape(const IpAddress& source) override;
  bool is_probe_port(Port port) override;
  bool is_probe_path(std::string_view path) override;
  bool may_probe(const IpAddress& source, Port port) override;
  std::string config_yaml() override;
  std::string connections_json() override;
  std::string allow_list_json() override;
  std::string identities_json() override;
  void drain() override;
  void set_log_level(LogLevel level) override;
  Facts facts() override;

  std::shared_ptr<const PolicySnapshot> snapshot() const;
  X509ContextPtr identity() const;

  Config config_;
  Log& log_;
  std::vector<std::unique_ptr<WorkerCounters>> counters_;
  std::unique_ptr<AccessLog> access_log_;
  std::unique_ptr<SourcePorts> source_ports_;
  std::vector<std::unique_ptr<Unit>> units_;
  std::shared_ptr<SessionCache> sessions_;
  std::unique_ptr<SvidSource> identity_source_;
  X509ContextPtr source_context_;                       // as the source gave it, before the federated bundles are added
  std::unique_ptr<FederatedFiles> federated_files_;     // null: none are configured
  std::map<std::string, HeldBundle> streamed_bundles_;  // of the control plane, by trust domain
  std::optional<ContentHash> bundles_in_use_;           // with the SVID of source_context_
  std::unique_ptr<PolicyDirectory> policy_source_;      // or policy_client_; or none
  std::unique_ptr<AdminServer> admin_;
  std::uint64_t tls_generation_ = 0;
  int wakeup_ = -1;  // eventfd: the admin thread asks for a drain
  bool policy_changed_ = false;
  std::chrono::steady_clock::time_point drain_until_ = std::chrono::steady_clock::time_point::max();

  // Shared with the admin thread.
  mutable std::mutex mutex_;
  std::vector<std::pair<std::function<void()>, std::function<void()>>> to_adopt_;
  std::shared_ptr<const PolicySnapshot> snapshot_;
  X509ContextPtr identity_;
  IdentityFacts identity_facts_;
  std::string policy_error_;
  std::vector<std::string> policy_warnings_;
  std::atomic<bool> draining_{false};
  std::atomic<bool> drain_asked_{false};
  std::atomic<std::uint64_t> enforced_generation_{0};
  std::atomic<std::uint64_t> policy_rejected_{0};
  std::atomic<std::uint64_t> identity_rejected_{0};

  std::unique_ptr<PolicyClient> policy_client_;  // last: its thread uses what is above
};

}  // namespace postern
