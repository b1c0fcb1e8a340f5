#include "control/config.hpp"

#include "authz/mesh_names.hpp"
#include "base/config_values.hpp"

namespace postern {
namespace {

using namespace config_value;
using std::chrono::milliseconds;

using Time = Duration<milliseconds, Zero::refused>;
using Seconds = Duration<std::chrono::seconds, Zero::refused>;
using TimeOrZero = Duration<milliseconds, Zero::allowed>;
template <std::uint32_t min, std::uint32_t max>
using Number = Count<std::uint32_t, min, max>;

template <class Value, class Access>
ConfigField<ControlConfig> field(std::string_view path, Access access, std::string_view doc) {
  return config_field<ControlConfig, Value>(path, access, doc);
}

std::vector<ConfigField<ControlConfig>> make_fields() {
  return {
      field<PortNumber>(
          "listen.stream", [](auto& c) -> auto& { return c.listen.stream; }, "The sidecars' streams: mutual TLS. 0: any free port."),
      field<PortNumber>(
          "listen.signing", [](auto& c) -> auto& { return c.listen.signing; },
          "SVIDs for pods, over TLS; only with authority.enabled. 0: any free port."),
      field<PortNumber>(
          "listen.health", [](auto& c) -> auto& { return c.listen.health; }, "HTTP: /healthz, /readyz and /metrics. 0: any free port."),
      field<SocketPath>(
          "listen.adminSocket", [](auto& c) -> auto& { return c.listen.admin_socket; },
          "Unix socket of the admin API (posternctl status --control). Empty: none."),

      field<PortNumber>(
          "listen.webhook", [](auto& c) -> auto& { return c.listen.webhook; },
          "The injector's admission webhooks: HTTPS. 0: any free port."),

      field<Path>(
          "webhook.settings", [](auto& c) -> auto& { return c.webhook.settings; },
          "What the injector puts into pods (posternctl inject --print-settings). Empty: no webhooks."),
      field<Path>(
          "webhook.certificate", [](auto& c) -> auto& { return c.webhook.certificate; },
          "Serving certificate, PEM, reloaded when it changes. Empty: made here, under an authority kept in webhook.secret."),
      field<Path>(
          "webhook.key", [](auto& c) -> auto& { return c.webhook.key; }, "Its private key, PEM."),
      field<ObjectName>(
          "webhook.configuration", [](auto& c) -> auto& { return c.webhook.configuration; },
          "Name of the Mutating- and ValidatingWebhookConfiguration whose caBundle is kept right."),
      field<ObjectName>(
          "webhook.secret", [](auto& c) -> auto& { return c.webhook.secret; },
          "Secret of the certificate's authority, in meshConfigMap.namespace."),
      field<ObjectName>(
          "webhook.service", [](auto& c) -> auto& { return c.webhook.service; },
          "Service that the API server calls, in meshConfigMap.namespace: the certificate names it."),

      field<Path>(
          "identity.certificate", [](auto& c) -> auto& { return c.identity.certificate; },
          "X.509-SVID spiffe://TRUST-DOMAIN/postern/control: certificate chain, leaf first, PEM."),
      field<Path>(
          "identity.key", [](auto& c) -> auto& { return c.identity.key; }, "Its private key, PEM."),
      field<Path>(
          "identity.bundle", [](auto& c) -> auto& { return c.identity.bundle; }, "Trust bundle: the authorities of the trust domain, PEM."),

      field<Boolean>(
          "authority.enabled", [](auto& c) -> auto& { return c.authority.enabled; },
          "Sign SVIDs for pods, and the control plane's own; instead of identity."),
      field<ObjectName>(
          "authority.namespace", [](auto& c) -> auto& { return c.authority.ns; }, "Namespace of its Secrets."),
      field<ObjectName>(
          "authority.secret", [](auto& c) -> auto& { return c.authority.secret; },
          "Secret that keeps the authority and its rotation; made by the first replica that starts."),
      field<ObjectName>(
          "authority.givenSecret", [](auto& c) -> auto& { return c.authority.given_secret; },
          "Secret with a CA of your own (tls.crt, tls.key, ca.crt, as cert-manager writes it). Empty: one is made."),
      field<Seconds>(
          "authority.svidTtl", [](auto& c) -> auto& { return c.authority.svid_ttl; },
          "Lifetime of an SVID; the same at every replica. Sidecars renew at half of it."),
      field<Seconds>(
          "authority.lifetime", [](auto& c) -> auto& { return c.authority.lifetime; },
          "Lifetime of a self-created authority; it is rotated after two thirds of it."),
      field<Number<1, 1'000'000>>(
          "authority.requestsPerSecond", [](auto& c) -> auto& { return c.authority.requests_per_second; },
          "Requests for an SVID that are looked at, by this replica."),
      field<Number<1, 1'000'000>>(
          "authority.podRequestsPerMinute", [](auto& c) -> auto& { return c.authority.pod_requests_per_minute; },
          "SVIDs for one pod, from this replica."),

      field<FederatedBundleList>(
          "federatedBundles", [](auto& c) -> auto& { return c.federated_bundles; },
          "Trust bundles of other trust domains, from files or bundle endpoints, for every sidecar (docs/federation.md)."),

      field<TrustDomainName>(
          "mesh.trustDomain", [](auto& c) -> auto& { return c.mesh.trust_domain; }, "Trust domain of the mesh; required."),
      field<Choice<default_policy_names>>(
          "mesh.defaultPolicy", [](auto& c) -> auto& { return c.mesh.default_policy; },
          "What holds for a pod that no policy selects: open as in Kubernetes, or denied."),
      field<Choice<node_traffic_names>>(
          "mesh.nodeTraffic", [](auto& c) -> auto& { return c.mesh.node_traffic; },
          "What a pod's own node may reach: the ports of probes and lifecycle hooks, everything, or nothing."),
      field<Choice<mtls_mode_names>>(
          "mesh.mtls", [](auto& c) -> auto& { return c.mesh.mtls; },
          "strict: plaintext never counts as a pod. permissive: it may, by address. spiffe: plain SPIFFE mTLS is accepted too."),
      field<Boolean>(
          "mesh.audit", [](auto& c) -> auto& { return c.mesh.audit; }, "Every policy is only audited: denials are logged, not enforced."),
      field<CidrList>(
          "mesh.clusterCidrs", [](auto& c) -> auto& { return c.mesh.cluster_cidrs; },
          "Ranges of pods and Services: an unknown address inside them is looked up, and refused if nobody has it."),
      field<SerialList>(
          "mesh.denied.serials", [](auto& c) -> auto& { return c.mesh.denied.serials; }, "Serial numbers of certificates."),
      field<SpiffeIdList>(
          "mesh.denied.spiffeIds", [](auto& c) -> auto& { return c.mesh.denied.spiffe_ids; },
          "SPIFFE IDs, whole: an account's does not stand for its pods."),

      field<ObjectName>(
          "meshConfigMap.namespace", [](auto& c) -> auto& { return c.config_map.ns; }, "Its namespace."),
      field<ObjectName>(
          "meshConfigMap.name", [](auto& c) -> auto& { return c.config_map.name; },
          "Its name; the key mesh.yaml holds what stands under mesh here."),

      field<Path>(
          "kubeconfig", [](auto& c) -> auto& { return c.kubeconfig; },
          "File that says how to reach the API server. Empty: the pod's service account."),
      field<Text>(
          "replica", [](auto& c) -> auto& { return c.replica; }, "Name of this replica in the log and in Events. Empty: the host's name."),

      field<ObjectName>(
          "ticketKeys.secret", [](auto& c) -> auto& { return c.ticket_keys.secret; },
          "Secret of the replicas' TLS ticket keys, in meshConfigMap.namespace; made where there is none. Empty: keys of this replica's "
          "own."),
      field<Time>(
          "ticketKeys.rotation", [](auto& c) -> auto& { return c.ticket_keys.rotation; },
          "A key seals tickets for this long, and opens them three times as long."),

      field<Number<1, 1'000'000>>(
          "limits.streams", [](auto& c) -> auto& { return c.limits.streams; }, "Streams open at a time; one more is refused."),
      field<Number<1, 100'000>>(
          "limits.handshakes", [](auto& c) -> auto& { return c.limits.handshakes; },
          "Connections at a time that have not said hello yet; further ones wait in the kernel."),
      field<Number<1, 65'536>>(
          "limits.messageKilobytes", [](auto& c) -> auto& { return c.limits.message_kilobytes; },
          "The longest message of a sidecar; a longer one ends its stream."),
      field<Number<1, 1'000'000>>(
          "limits.lookupsPerSecond", [](auto& c) -> auto& { return c.limits.lookups_per_second; }, "Look-ups of one sidecar, on average."),
      field<Number<1, 1'000'000>>(
          "limits.lookupBurst", [](auto& c) -> auto& { return c.limits.lookup_burst; }, "Look-ups of one sidecar at once."),
      field<Time>(
          "limits.handshakeTimeout", [](auto& c) -> auto& { return c.limits.handshake_timeout; },
          "From accept to the sidecar's Hello: TLS, the upgrade and the first message."),
      field<Time>(
          "limits.idleTimeout", [](auto& c) -> auto& { return c.limits.idle_timeout; },
          "A stream without a byte from the sidecar for this long is closed; pings go out at half of it."),
      field<Time>(
          "limits.writeTimeout", [](auto& c) -> auto& { return c.limits.write_timeout; },
          "For a sidecar to take one message; then its stream is closed."),

      field<TimeOrZero>(
          "publish.quiet", [](auto& c) -> auto& { return c.publish.quiet; },
          "Changes are published together once none has come for this long."),
      field<Time>(
          "publish.longest", [](auto& c) -> auto& { return c.publish.longest; }, "The longest that a change waits for others to join it."),

      field<TimeOrZero>(
          "drainPeriod", [](auto& c) -> auto& { return c.drain_period; }, "After SIGTERM: how long the streams' closing may take."),
      field<Choice<log_levels>>(
          "logLevel", [](auto& c) -> auto& { return c.log_level; }, "Of the log on stderr; the admin socket's /log-level changes it."),
  };
}

std::vector<ConfigSection> make_sections() {
  return {
      {"listen", "Where postern-control listens."},
      {"webhook", "The injector (docs/injection.md)."},
      {"identity", "The control plane's X.509-SVID from files, reloaded when they change."},
      {"authority", "The built-in CA (docs/identity.md)."},
      {"mesh", "What holds for the whole mesh where its ConfigMap says nothing."},
      {"mesh.denied", "Identities that are refused whatever policy says: new connections and live ones."},
      {"meshConfigMap", "The mesh's settings in the cluster, watched."},
      {"ticketKeys", "So that a sidecar's TLS session is resumed at any replica."},
      {"limits", "Bounds. Whatever meets one is counted and logged."},
      {"publish", "How changes that come together are joined."},
  };
}

}  // namespace

const ConfigTable<ControlConfig>& control_config_table() {
  static const ConfigTable<ControlConfig> table{make_fields(), make_sections()};
  return table;
}

Result<void> validate(const ControlConfig& config) {
  for (const auto& [path, value] :
       {std::pair{"identity.certificate", &config.identity.certificate}, std::pair{"identity.key", &config.identity.key},
        std::pair{"identity.bundle", &config.identity.bundle}}) {
    if (config.authority.enabled && !value->empty()) {
      return Error{"given together with authority.enabled; the control plane's SVID comes either from files or from its own authority",
                   path};
    }
    if (!config.authority.enabled && value->empty())
      return Error{"missing; expected the path of a PEM file, or authority.enabled: true", path};
  }
  if (config.authority.enabled && (config.authority.ns.empty() || config.authority.secret.empty()))
    return Error{"missing; expected the Secret's namespace and name", "authority.secret"};
  if (config.authority.enabled && config.authority.given_secret == config.authority.secret)
    return Error{"the same as authority.secret; expected another Secret, which Postern only reads", "authority.givenSecret"};
  if (config.authority.enabled && config.authority.lifetime < 3 * config.authority.svid_ttl)
    return Error{"expected at least three times authority.svidTtl", "authority.lifetime"};
  if (config.mesh.trust_domain.text().empty()) {
    return Error{"missing; expected the trust domain of the mesh, such as cluster.local", "mesh.trustDomain"};
  }
  if (auto valid = check_federated_bundles(config.federated_bundles, config.mesh.trust_domain, "federatedBundles"); !valid)
    return valid.error();
  if (config.config_map.ns.empty() || config.config_map.name.empty()) {
    return Error{"missing; expected the ConfigMap's namespace and name", "meshConfigMap"};
  }
  if (config.listen.stream.number != 0 && config.listen.stream == config.listen.health) {
    return Error{"port " + std::to_string(config.listen.health.number) + " is given twice; stream and health need a port each",
                 "listen.health"};
  }
  if (config.ticket_keys.rotation < std::chrono::seconds{1}) return Error{"expected at least 1s", "ticketKeys.rotation"};
  if (config.webhook.certificate.empty() != config.webhook.key.empty()) {
    return Error{"certificate and key are given together, or neither", "webhook"};
  }
  if (!config.webhook.settings.empty() && config.listen.webhook.number != 0 &&
      (config.listen.webhook == config.listen.stream || config.listen.webhook == config.listen.health)) {
    return Error{"port " + std::to_string(config.listen.webhook.number) + " is given twice; the webhook needs a port of its own",
                 "listen.webhook"};
  }
  if (config.authority.enabled && config.listen.signing.number != 0 &&
      (config.listen.signing == config.listen.health || config.listen.signing == config.listen.stream)) {
    return Error{"port " + std::to_string(config.listen.signing.number) + " is given twice; stream, signing and health need a port each",
                 "listen.signing"};
  }
  if (config.publish.longest < config.publish.quiet) return Error{"expected at least publish.quiet", "publish.longest"};
  return {};
}

}  // namespace postern
