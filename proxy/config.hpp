// Config: everything postern-proxy can be told. Units are in the types or the names. One validation.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "authz/snapshot.hpp"
#include "base/federated_bundle.hpp"
#include "base/log.hpp"
#include "base/result.hpp"

namespace postern {

struct Config {
  // The pod that this sidecar serves (YAML: workload.namespace, workload.name).
  struct {
    std::string ns = "default";
    std::string name;
  } workload;

  // Listening ports (YAML: listen.*). Outbound listens on loopback addresses only.
  struct {
    Port inbound{15006};
    Port outbound{15001};
    Port health{15020};        // /healthz /readyz /metrics /app-probe/<port>
    std::string admin_socket;  // unix socket; empty: none
  } listen;

  // X.509-SVID from files (YAML: identity.*), PEM, reloaded when they change.
  struct {
    std::string certificate;
    std::string key;
    std::string bundle;
    std::vector<FederatedBundle> federated_bundles = {};  // of other trust domains, from files (docs/federation.md); with any source
    // Or signed by the control plane (YAML: identity.controlPlane.*; docs/identity.md).
    struct {
      std::vector<std::string> addresses;  // host:port of its signing port; empty: none
      std::string token_file;
      std::string roots;  // PEM
      std::string roots_file;
    } control_plane = {};
    // From a SPIFFE Workload API instead (YAML: identity.workloadApi.*).
    struct {
      bool enabled = false;
      std::string socket;     // unix:///...; empty: the environment's SPIFFE_ENDPOINT_SOCKET
      std::string spiffe_id;  // which of several SVIDs; empty: any
      std::string hint;       // likewise
    } workload_api = {};
  } identity;

  std::string policy_dir;  // manifests: policies and topology (YAML: policyDir)
  // Policy over the control plane's stream instead (YAML: control.*; docs/stream.md).
  struct {
    std::vector<std::string> addresses;                    // host:port of its replicas; empty: none
    std::string state_dir;                                 // memory-backed; empty: nothing is kept
    std::chrono::milliseconds max_policy_age{86'400'000};  // of a kept state, at start only
    std::chrono::milliseconds lookup_timeout{500};
  } control;

  MeshSettings mesh;  // YAML: mesh.trustDomain, .defaultPolicy, .nodeTraffic, .mtls, .audit, .clusterCidrs, .nodeAddresses

  struct {  // YAML: tls.*
    std::string groups = "X25519MLKEM768:X25519:P-256";
    bool resumption = true;
    std::size_t session_cache_entries = 20'000;
  } tls;

  struct {  // YAML: recycling.*; architecture section 2a
    bool enabled = true;
    std::chrono::milliseconds outbound_idle{30'000};
    std::chrono::milliseconds inbound_idle{60'000};  // longer than any outbound's, so that the outbound closes first
    std::uint32_t per_destination = 128;             // idle connections kept per worker, destination and port
    std::uint32_t total = 1024;                      // per worker
  } recycling;

  struct {  // YAML: limits.*; 0 means no limit where it says so
    std::chrono::milliseconds handshake_timeout{10'000};
    std::chrono::milliseconds connect_timeout{10'000};
    std::chrono::milliseconds peek_timeout{2'000};    // deciding TLS or plaintext for an unknown source
    std::chrono::milliseconds idle_timeout{0};        // 0: off
    std::chrono::milliseconds max_connection_age{0};  // of live connections once our SVID has expired; 0: off
    std::uint32_t max_connections = 100'000;          // both directions together
    std::uint32_t max_handshakes = 1'000;             // under way at the same time
    std::uint32_t max_connections_per_source = 0;     // inbound; 0: off
  } limits;

  struct {  // YAML: tcp.*
    std::chrono::seconds keepalive_time{60};
    std::chrono::seconds keepalive_interval{10};
    std::uint32_t keepalive_probes = 6;
  } tcp;

  struct {                                // YAML: accessLog.*
    std::string path = "-";               // "-": stdout; empty: none
    bool at_open = false;                 // a record at the opening, too
    std::uint32_t queue_records = 8'192;  // per worker; beyond it records are dropped and counted
  } access_log;

  std::chrono::milliseconds drain_period{30'000};
  std::uint32_t workers = 0;  // 0: one per core
  LogLevel log_level = LogLevel::info;
};

// Reads YAML text. An unknown key or an ill-typed value is refused: source:line, field, what is expected, the nearest valid name.
// Fields that the text does not name keep their value of `start`.
Result<Config> parse_config(std::string_view yaml, std::string_view source, Config start = {});
// What cannot be said by a single field (identity files given together, ports distinct, ...).
Result<void> validate(const Config& config);
// Every field with its current value and a comment saying what it is, its unit and default: valid input for parse_config.
std::string print_config(const Config& config);

}  // namespace postern
