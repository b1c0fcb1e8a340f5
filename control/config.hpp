// ControlConfig: everything postern-control can be told. Units are in the types or the names. One validation.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "authz/snapshot.hpp"
#include "base/config_table.hpp"
#include "base/federated_bundle.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

namespace postern {

struct ControlConfig {
  // Listening ports (YAML: listen.*).
  struct {
    Port stream{15010};        // the sidecars' streams: mutual TLS
    Port signing{15012};       // SVIDs for pods: TLS (only with authority.enabled)
    Port health{15011};        // /healthz /readyz /metrics
    std::string admin_socket;  // unix socket; empty: none
    Port webhook{15017};       // admission webhooks: HTTPS
  } listen;

  struct {                    // YAML: webhook.*; no settings: no webhooks
    std::string settings;     // file of InjectionSettings
    std::string certificate;  // given; empty: made here
    std::string key;
    std::string configuration = "postern";    // of the webhook configurations
    std::string secret = "postern-webhook";   // in the mesh's namespace
    std::string service = "postern-control";  // in the mesh's namespace
  } webhook;

  // X.509-SVID of the control plane from files (YAML: identity.*), PEM, reloaded when they change.
  struct {
    std::string certificate;
    std::string key;
    std::string bundle;
  } identity;

  // The built-in CA, instead of identity.* (YAML: authority.*; docs/identity.md).
  struct {
    bool enabled = false;
    std::string ns = "postern-system";
    std::string secret = "postern-authority";
    std::string given_secret;  // as cert-manager writes it; empty: self-created
    std::chrono::seconds svid_ttl{3'600};
    std::chrono::seconds lifetime{365 * 24 * 3'600};
    std::uint32_t requests_per_second = 200;
    std::uint32_t pod_requests_per_minute = 12;
  } authority;

  std::vector<FederatedBundle> federated_bundles;  // of other trust domains (docs/federation.md)

  // What holds where the mesh's ConfigMap says nothing (YAML: mesh.*).
  MeshSettings mesh;
  struct {  // YAML: mesh.configMap.*
    std::string ns = "postern-system";
    std::string name = "postern";
  } config_map;

  std::string kubeconfig;  // empty: in-cluster configuration
  std::string replica;     // for the log and the Events; empty: the host's name

  struct {                                               // YAML: ticketKeys.*
    std::string secret = "postern-control-ticket-keys";  // in the namespace of config_map; empty: each replica has its own keys
    std::chrono::milliseconds rotation{12 * 3'600'000};
  } ticket_keys;

  struct {  // YAML: limits.*
    std::uint32_t streams = 20'000;
    std::uint32_t handshakes = 500;  // under way at a time
    std::uint32_t message_kilobytes = 4'096;
    std::uint32_t lookups_per_second = 20;  // of one stream
    std::uint32_t lookup_burst = 100;
    std::chrono::milliseconds handshake_timeout{10'000};  // TLS, upgrade and Hello together
    std::chrono::milliseconds idle_timeout{30'000};       // without a message or a pong; pings go out at half of it
    std::chrono::milliseconds write_timeout{30'000};      // for one message to be taken
  } limits;

  struct {  // YAML: publish.*
    std::chrono::milliseconds quiet{5};
    std::chrono::milliseconds longest{50};
  } publish;

  std::chrono::milliseconds drain_period{2'000};  // after SIGTERM, for the streams' closing handshakes
  LogLevel log_level = LogLevel::info;
};

const ConfigTable<ControlConfig>& control_config_table();
// What cannot be said by a single field.
Result<void> validate(const ControlConfig& config);

}  // namespace postern
