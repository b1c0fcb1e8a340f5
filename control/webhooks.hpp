// Webhooks: the injector's webhooks within postern-control: server, settings, certificate, and what the API server is told of them.
//
// The certificate's authority lives in a Secret that the first replica makes; every replica makes its own serving certificate of it. A
// replica begins to serve with a new authority once the webhook configurations name it (caBundle), and they keep naming the one before:
// renewal refuses no pod.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <memory>
#include <string>
#include <vector>

#include "base/log.hpp"
#include "base/result.hpp"
#include "control/cluster_store.hpp"
#include "control/config.hpp"
#include "control/event_recorder.hpp"
#include "control/injection_settings.hpp"
#include "control/kube_client.hpp"
#include "control/webhook_certificate.hpp"
#include "control/webhook_server.hpp"

namespace postern {

class Webhooks {
 public:
  // Binds the port and reads the injection settings. REQUIRES: `config.webhook.settings` is not empty; all outlive this.
  static Result<std::unique_ptr<Webhooks>> make(boost::asio::io_context& io, KubeClient& client, EventRecorder& recorder,
                                                const ControlConfig& config, Log& log);
  ~Webhooks();

  void start();
  // The root certificates that new pods' sidecars begin with, PEM; from the next pod on. Nothing is injected before the first.
  void use_roots(const std::string& pem);
  // Looks whether pods that changed, or whose namespace did, should have a sidecar and have none; an Event for each that is new.
  void look_for_uninjected(const ClusterStore& store, const Changes& changes);
  // What readiness says; empty: ready.
  std::string why_not_ready() const;
  WebhookServer::Stats stats() const;
  std::size_t uninjected() const;

 private:
  struct Impl;
  explicit Webhooks(std::shared_ptr<Impl> impl);
  std::shared_ptr<Impl> impl_;
};

}  // namespace postern
