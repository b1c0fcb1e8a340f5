// Control: the whole of postern-control: reads the cluster, publishes, serves the sidecars. One thread runs everything but the admin
// services.
#pragma once

#include <array>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "base/result.hpp"
#include "certs/file_source.hpp"
#include "control/admin.hpp"
#include "control/authority_store.hpp"
#include "control/bundle_acks.hpp"
#include "control/cluster_store.hpp"
#include "control/config.hpp"
#include "control/event_recorder.hpp"
#include "control/federation.hpp"
#include "control/in_force.hpp"
#include "control/kube_client.hpp"
#include "control/metrics.hpp"
#include "control/policy_events.hpp"
#include "control/policy_server.hpp"
#include "control/publisher.hpp"
#include "control/reflector.hpp"
#include "control/shared_ticket_keys.hpp"
#include "control/signing_server.hpp"
#include "control/webhooks.hpp"

namespace postern {

class Control final : private ControlAdminBackend {
 public:
  // `config` is valid. Binds every port and reads the identity; fails where a port or a folder cannot be had.
  static Result<std::unique_ptr<Control>> make(ControlConfig config, Log& log);
  ~Control() override;

  // Blocks until SIGTERM or SIGINT and the end of the drain. Returns the exit status.
  int run();

 private:
  using Clock = std::chrono::steady_clock;

  Control(ControlConfig config, KubeConfig kube, Log& log);
  void start_watching();
  void on_event(WatchEvent event);
  void on_unreadable(const Unreadable& object);
  std::optional<WatchedObject> last_good(WatchedKind kind, const ObjectKey& key) const;
  boost::asio::awaitable<void> learn_store_uid();
  void changed();
  void catch_up(const Mark& mark);  // a sidecar waits for it
  boost::asio::awaitable<void> flush_loop();
  void flush();
  void settle_soon();
  boost::asio::awaitable<void> settle_loop();
  void note_in_force();
  void settle();
  StreamState stream_state(const WorkloadKey& key) const;
  boost::asio::awaitable<void> identity_loop();
  Result<Port> make_authority();  // the signing port
  void use_authority();
  std::uint64_t lagging_behind(std::uint64_t sequence);
  void read_identity();
  void start_ticket_keys();
  boost::asio::awaitable<void> end_on_signal();
  ControlFacts facts() const;
  std::string why_not_ready() const;

  // What the admin threads ask, answered by the control thread.
  template <class Question>
  std::optional<std::string> ask(Question question) {
    const auto promise = std::make_shared<std::promise<std::string>>();
    auto answer = promise->get_future();
    boost::asio::post(io_, [promise, question = std::move(question)] { promise->set_value(question()); });
    if (answer.wait_for(std::chrono::seconds{1}) != std::future_status::ready) return std::nullopt;
    return answer.get();
  }
  std::string not_ready() override;
  std::optional<std::string> metrics() override;
  std::optional<std::string> policies_json(std::string_view ns, std::string_view name) override;
  std::optional<std::string> streams_json() override;
  std::optional<std::string> unconnected_json() override;
  std::optional<std::string> authority_json() override;
  std::optional<std::string> rotate_authority() override;
  std::string config_yaml() override;

  const ControlConfig config_;
  Log& log_;
  boost::asio::io_context io_{1};
  ClusterStore store_;
  Publisher publisher_;
  KubeClient client_;
  EventRecorder recorder_;
  PolicyEvents events_;
  InForceClock in_force_;
  std::unique_ptr<PolicyServer> server_;
  std::unique_ptr<SharedTicketKeys> ticket_keys_;  // null: this replica's own
  std::unique_ptr<Webhooks> webhooks_;             // nothing: none are configured
  std::vector<std::unique_ptr<Reflector>> reflectors_;
  std::array<std::optional<Clock::time_point>, watched_kinds.size()> synced_at_{};

  std::unique_ptr<FileSource> identity_source_;
  std::unique_ptr<boost::asio::posix::stream_descriptor> identity_fd_;
  X509ContextPtr identity_;
  std::string identity_error_;
  std::uint64_t identity_rejected_ = 0;

  // The built-in CA; null: the identity comes from files.
  const std::string replica_;
  std::unique_ptr<AuthorityStore> authority_;
  std::unique_ptr<SigningServer> signing_;
  BundleAcks bundle_acks_;
  NumberedBundle bundle_in_use_;
  ResourcePtr bundle_resource_;
  std::string own_signer_;  // the serial number of what signed identity_, and the sequence of its bundle
  std::uint64_t own_sequence_ = 0;

  std::unique_ptr<Federation> federation_;  // null: no other trust domain

  const Clock::time_point began_ = Clock::now();
  std::string store_uid_;
  bool learning_uid_ = false;
  bool published_ = false;
  bool warned_of_ranges_ = false;
  bool dirty_ = false;  // the store has seen events since the last flush
  Clock::time_point dirty_since_;
  Clock::time_point dirty_last_;
  boost::asio::steady_timer flush_timer_;
  bool settling_ = false;
  boost::asio::steady_timer settle_timer_;
  DurationBuckets flush_duration_;
  DurationBuckets edit_to_enforced_;
  boost::asio::signal_set signals_;
  std::unique_ptr<ControlAdmin> admin_;  // last: its threads ask all of the above
};

}  // namespace postern
