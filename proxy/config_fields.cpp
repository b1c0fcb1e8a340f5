#include "proxy/config_fields.hpp"

#include "authz/mesh_names.hpp"
#include "base/config_values.hpp"

namespace postern {
namespace {

using namespace config_value;
using std::chrono::milliseconds;
using std::chrono::seconds;

using Time = Duration<milliseconds, Zero::refused>;
using TimeOrOff = Duration<milliseconds, Zero::allowed>;
using Seconds = Duration<seconds, Zero::refused>;
template <std::uint32_t min, std::uint32_t max>
using Number = Count<std::uint32_t, min, max>;

template <class Value, class Access>
ConfigField<Config> field(std::string_view path, Access access, std::string_view doc) {
  return config_field<Config, Value>(path, access, doc);
}

std::vector<ConfigField<Config>> make_fields() {
  return {
      field<ObjectName>(
          "workload.namespace", [](auto& c) -> auto& { return c.workload.ns; }, "Namespace of the pod."),
      field<ObjectName>(
          "workload.name", [](auto& c) -> auto& { return c.workload.name; }, "Name of the pod; required with policyDir or control."),

      field<PortNumber>(
          "listen.inbound", [](auto& c) -> auto& { return c.listen.inbound; },
          "Where redirected connections to the pod arrive. 0: any free port."),
      field<PortNumber>(
          "listen.outbound", [](auto& c) -> auto& { return c.listen.outbound; },
          "Where redirected connections of the application arrive; loopback only. 0: any free port."),
      field<PortNumber>(
          "listen.health", [](auto& c) -> auto& { return c.listen.health; },
          "HTTP: /healthz, /readyz, /metrics and /app-probe/PORT. 0: any free port."),
      field<SocketPath>(
          "listen.adminSocket", [](auto& c) -> auto& { return c.listen.admin_socket; },
          "Unix socket of the admin API (posternctl proxy). Empty: none."),

      field<Path>(
          "identity.certificate", [](auto& c) -> auto& { return c.identity.certificate; },
          "X.509-SVID: certificate chain, leaf first, PEM."),
      field<Path>(
          "identity.key", [](auto& c) -> auto& { return c.identity.key; }, "Its private key, PEM."),
      field<Path>(
          "identity.bundle", [](auto& c) -> auto& { return c.identity.bundle; },
          "Trust bundle: the authorities of the trust domain, PEM or SPIFFE's JSON."),
      field<FederatedFileList>(
          "identity.federatedBundles", [](auto& c) -> auto& { return c.identity.federated_bundles; },
          "Trust bundles of other trust domains, {trustDomain, bundle}, PEM or SPIFFE's JSON, reloaded when they change."),
      field<Boolean>(
          "identity.workloadApi.enabled", [](auto& c) -> auto& { return c.identity.workload_api.enabled; },
          "Take the SVID from a SPIFFE Workload API, such as SPIRE's agent, instead of files."),
      field<Text>(
          "identity.workloadApi.socket", [](auto& c) -> auto& { return c.identity.workload_api.socket; },
          "Its endpoint: unix:///PATH. Empty: that of the environment variable SPIFFE_ENDPOINT_SOCKET."),
      field<Text>(
          "identity.workloadApi.spiffeId", [](auto& c) -> auto& { return c.identity.workload_api.spiffe_id; },
          "Of several SVIDs, the one with this SPIFFE ID. Empty: whichever comes first."),
      field<Text>(
          "identity.workloadApi.hint", [](auto& c) -> auto& { return c.identity.workload_api.hint; },
          "Of several SVIDs, the one that the operator gave this hint. Empty: whichever comes first."),

      field<HostPortList>(
          "identity.controlPlane.addresses", [](auto& c) -> auto& { return c.identity.control_plane.addresses; },
          "Replicas of postern-control (host:port of their signing port) that sign the SVID; instead of files. The key is made here."),
      field<Path>(
          "identity.controlPlane.tokenFile", [](auto& c) -> auto& { return c.identity.control_plane.token_file; },
          "The pod's projected ServiceAccount token, audience postern-control."),
      field<Text>(
          "identity.controlPlane.roots", [](auto& c) -> auto& { return c.identity.control_plane.roots; },
          "The roots that prove the control plane, PEM; from the pod's own spec. Later ones come from the control plane itself."),
      field<Path>(
          "identity.controlPlane.rootsFile", [](auto& c) -> auto& { return c.identity.control_plane.roots_file; },
          "The same in a file, read once at start."),

      field<Path>(
          "policyDir", [](auto& c) -> auto& { return c.policy_dir; },
          "Folder of manifests (NetworkPolicies, Namespaces, Pods, Services), watched for change. Without policy only probes are "
          "answered."),

      field<HostPortList>(
          "control.addresses", [](auto& c) -> auto& { return c.control.addresses; },
          "Replicas of postern-control (host:port of their stream); one of them is used at a time. Instead of policyDir."),
      field<Path>(
          "control.stateDir", [](auto& c) -> auto& { return c.control.state_dir; },
          "Memory-backed folder for the last good policy, from which a restarted sidecar goes on. Empty: nothing is kept."),
      field<Time>(
          "control.maxPolicyAge", [](auto& c) -> auto& { return c.control.max_policy_age; },
          "A kept policy that was confirmed longer ago is not used at start. A running sidecar keeps its policy however old."),
      field<Time>(
          "control.lookupTimeout", [](auto& c) -> auto& { return c.control.lookup_timeout; },
          "How long a connection to or from an unknown address of the cluster waits for what the control plane knows of it."),

      field<TrustDomainName>(
          "mesh.trustDomain", [](auto& c) -> auto& { return c.mesh.trust_domain; },
          "Trust domain of the mesh; required with identity, policyDir or control."),
      field<Choice<default_policy_names>>(
          "mesh.defaultPolicy", [](auto& c) -> auto& { return c.mesh.default_policy; },
          "What holds for a pod that no policy selects: open as in Kubernetes, or denied."),
      field<Choice<node_traffic_names>>(
          "mesh.nodeTraffic", [](auto& c) -> auto& { return c.mesh.node_traffic; },
          "What the pod's own node may reach: the ports of probes and lifecycle hooks, everything, or nothing."),
      field<Choice<mtls_mode_names>>(
          "mesh.mtls", [](auto& c) -> auto& { return c.mesh.mtls; },
          "strict: plaintext never counts as a pod. permissive: it may, by address. spiffe: plain SPIFFE mTLS is accepted too."),
      field<Boolean>(
          "mesh.audit", [](auto& c) -> auto& { return c.mesh.audit; }, "Every policy is only audited: denials are logged, not enforced."),
      field<CidrList>(
          "mesh.clusterCidrs", [](auto& c) -> auto& { return c.mesh.cluster_cidrs; },
          "Ranges of pods and Services: an unknown address inside them is refused, not taken for outside."),
      field<AddressList>(
          "mesh.nodeAddresses", [](auto& c) -> auto& { return c.mesh.node_addresses; },
          "Addresses of the pod's own node, as the pod sees them, beside its default gateways and what Pod and Node say."),
      field<SerialList>(
          "mesh.denied.serials", [](auto& c) -> auto& { return c.mesh.denied.serials; }, "Serial numbers of certificates."),
      field<SpiffeIdList>(
          "mesh.denied.spiffeIds", [](auto& c) -> auto& { return c.mesh.denied.spiffe_ids; },
          "SPIFFE IDs, whole: an account's does not stand for its pods."),

      field<Groups>(
          "tls.groups", [](auto& c) -> auto& { return c.tls.groups; },
          "Key exchange groups, most wanted first; those that OpenSSL does not know are left out."),
      field<Boolean>(
          "tls.resumption", [](auto& c) -> auto& { return c.tls.resumption; }, "Resume TLS sessions; each is authorized afresh."),
      field<Count<std::size_t, 1, 10'000'000>>(
          "tls.sessionCacheEntries", [](auto& c) -> auto& { return c.tls.session_cache_entries; },
          "Sessions kept, by all workers together."),

      field<Boolean>(
          "recycling.enabled", [](auto& c) -> auto& { return c.recycling.enabled; },
          "Keep TLS connections between sidecars for the next application connection to the same pod and port."),
      field<Time>(
          "recycling.outboundIdle", [](auto& c) -> auto& { return c.recycling.outbound_idle; },
          "How long the outbound side keeps an idle one."),
      field<Time>(
          "recycling.inboundIdle", [](auto& c) -> auto& { return c.recycling.inbound_idle; },
          "How long the inbound side waits for its next use; longer than outboundIdle, so that the outbound side closes first."),
      field<Number<0, 1'000'000>>(
          "recycling.perDestination", [](auto& c) -> auto& { return c.recycling.per_destination; },
          "Idle ones kept per worker, destination and port."),
      field<Number<0, 1'000'000>>(
          "recycling.total", [](auto& c) -> auto& { return c.recycling.total; }, "Idle ones kept per worker."),

      field<Time>(
          "limits.handshakeTimeout", [](auto& c) -> auto& { return c.limits.handshake_timeout; }, "For a TLS handshake."),
      field<Time>(
          "limits.connectTimeout", [](auto& c) -> auto& { return c.limits.connect_timeout; },
          "For a TCP connection to the destination or the application."),
      field<Time>(
          "limits.peekTimeout", [](auto& c) -> auto& { return c.limits.peek_timeout; },
          "For the first bytes of an unknown source, which tell TLS from plaintext; after it, it is plaintext."),
      field<TimeOrOff>(
          "limits.idleTimeout", [](auto& c) -> auto& { return c.limits.idle_timeout; },
          "A connection without a byte either way for this long is closed. 0: never."),
      field<TimeOrOff>(
          "limits.maxConnectionAge", [](auto& c) -> auto& { return c.limits.max_connection_age; },
          "How long connections live on after our SVID has expired. 0: no limit."),
      field<Number<1, 10'000'000>>(
          "limits.maxConnections", [](auto& c) -> auto& { return c.limits.max_connections; }, "Open at a time, both directions together."),
      field<Number<1, 1'000'000>>(
          "limits.maxHandshakes", [](auto& c) -> auto& { return c.limits.max_handshakes; }, "TLS handshakes under way at a time."),
      field<Number<0, 10'000'000>>(
          "limits.maxConnectionsPerSource", [](auto& c) -> auto& { return c.limits.max_connections_per_source; },
          "Inbound connections of one source address. 0: no limit."),

      field<Seconds>(
          "tcp.keepaliveTime", [](auto& c) -> auto& { return c.tcp.keepalive_time; },
          "Silence before the first keepalive probe (TCP_KEEPIDLE)."),
      field<Seconds>(
          "tcp.keepaliveInterval", [](auto& c) -> auto& { return c.tcp.keepalive_interval; }, "Between two probes (TCP_KEEPINTVL)."),
      field<Number<1, 127>>(
          "tcp.keepaliveProbes", [](auto& c) -> auto& { return c.tcp.keepalive_probes; },
          "Probes without an answer before the connection counts as dead (TCP_KEEPCNT)."),

      field<Path>(
          "accessLog.path", [](auto& c) -> auto& { return c.access_log.path; },
          "File of the access log, one JSON object per line; - is stdout. Empty: none."),
      field<Boolean>(
          "accessLog.atOpen", [](auto& c) -> auto& { return c.access_log.at_open; }, "A record when a connection opens, too."),
      field<Number<1, 10'000'000>>(
          "accessLog.queueRecords", [](auto& c) -> auto& { return c.access_log.queue_records; },
          "Records waiting to be written, per worker; beyond it they are dropped and counted."),

      field<TimeOrOff>(
          "drainPeriod", [](auto& c) -> auto& { return c.drain_period; }, "After SIGTERM: how long open connections may go on."),
      field<Number<0, 1024>>(
          "workers", [](auto& c) -> auto& { return c.workers; }, "Worker threads. 0: one per core."),
      field<Choice<log_levels>>(
          "logLevel", [](auto& c) -> auto& { return c.log_level; },
          "Of the program's own log on stderr; posternctl proxy log-level changes it while running."),
  };
}

std::vector<ConfigSection> make_sections() {
  return {
      {"workload", "The pod that this sidecar serves."},
      {"listen", "Where the sidecar listens."},
      {"identity", "The pod's X.509-SVID from files, reloaded when they change: all three or none."},
      {"identity.workloadApi", "Or an SVID from a SPIFFE Workload API."},
      {"identity.controlPlane", "Or an SVID that the control plane signs."},
      {"control", "Policy from the control plane, instead of policyDir."},
      {"mesh", "What holds for the whole mesh. With a control plane its settings count; trustDomain is needed in both."},
      {"mesh.denied", "Identities that are refused whatever policy says: new connections and live ones."},
      {"tls", "Between sidecars: TLS 1.3 only, client certificate required."},
      {"recycling", "TLS connections used by one application connection after another."},
      {"limits", "Bounds. Whatever meets one is counted and logged with a reason of its own."},
      {"tcp", "Keepalive, on both legs of a connection."},
      {"accessLog", "One record per connection."},
  };
}

}  // namespace

const ConfigTable<Config>& config_table() {
  static const ConfigTable<Config> table{make_fields(), make_sections()};
  return table;
}

}  // namespace postern
