#include "proxy/config.hpp"

#include <set>

#include "base/config_values.hpp"
#include "certs/workload_api_source.hpp"
#include "proxy/config_fields.hpp"

namespace postern {

Result<Config> parse_config(std::string_view yaml, std::string_view source, Config start) {
  return config_table().parse(yaml, source, std::move(start));
}

std::string print_config(const Config& config) { return config_table().print(config); }

namespace {

Result<void> validate_workload_api(const Config& config, bool any_file) {
  const auto& api = config.identity.workload_api;
  if (!api.enabled) {
    if (api.socket.empty() && api.spiffe_id.empty() && api.hint.empty()) return {};
    return Error{"false, but other fields of identity.workloadApi are given; expected true, or none of them",
                 "identity.workloadApi.enabled"};
  }
  if (any_file) {
    return Error{"true, and identity.certificate is given, too; the SVID comes either from files or from the Workload API",
                 "identity.workloadApi.enabled"};
  }
  if (!api.socket.empty()) {
    if (const auto path = workload_api_socket(api.socket); !path) return Error{path.error().message, "identity.workloadApi.socket"};
  }
  if (!api.spiffe_id.empty()) {
    if (const auto id = SpiffeId::parse(api.spiffe_id); !id) return Error{id.error().message, "identity.workloadApi.spiffeId"};
  }
  return {};
}

}  // namespace

Result<void> validate(const Config& config) {
  const auto& identity = config.identity;
  const bool any_file = !identity.certificate.empty() || !identity.key.empty() || !identity.bundle.empty();
  for (const auto& [path, value] : {std::pair{"identity.certificate", &identity.certificate}, std::pair{"identity.key", &identity.key},
                                    std::pair{"identity.bundle", &identity.bundle}}) {
    if (any_file && value->empty()) {
      return Error{"missing; identity.certificate, identity.key and identity.bundle are given together or not at all", path};
    }
  }
  if (auto valid = validate_workload_api(config, any_file); !valid) return valid.error();
  const bool any_identity = any_file || identity.workload_api.enabled;
  const auto& signing = identity.control_plane;
  const bool is_signed = !signing.addresses.empty();
  if (is_signed && any_identity) {
    return Error{"another source of the SVID is given, too; it comes from files, from the Workload API or from the control plane",
                 "identity.controlPlane.addresses"};
  }
  if (is_signed && signing.token_file.empty()) {
    return Error{"missing; expected the path of the pod's projected token, audience postern-control", "identity.controlPlane.tokenFile"};
  }
  if (is_signed && signing.roots.empty() == signing.roots_file.empty()) {
    return Error{"expected either this or identity.controlPlane.rootsFile: what proves the control plane", "identity.controlPlane.roots"};
  }
  if (!is_signed && (!signing.token_file.empty() || !signing.roots.empty() || !signing.roots_file.empty())) {
    return Error{"missing; the other fields of identity.controlPlane count only with it", "identity.controlPlane.addresses"};
  }
  if (is_signed && config.workload.name.empty()) {
    return Error{"missing; expected the pod that this sidecar serves, whose SVID is asked for", "workload.name"};
  }
  const bool controlled = !config.control.addresses.empty();
  if (controlled && !config.policy_dir.empty()) {
    return Error{"policyDir is given, too; policy comes either from a folder or from the control plane", "control.addresses"};
  }
  if (controlled && !any_identity && !is_signed) {
    return Error{"missing; the control plane knows a sidecar by its SVID, which control.addresses therefore needs", "identity.certificate"};
  }
  if (!controlled && !is_signed && !config.control.state_dir.empty()) {
    return Error{"missing; control.stateDir keeps what they send", "control.addresses"};
  }
  if (config.mesh.trust_domain.text().empty() && (any_identity || is_signed || controlled || !config.policy_dir.empty())) {
    return Error{"missing; expected the trust domain of the mesh, such as cluster.local", "mesh.trustDomain"};
  }
  if ((controlled || !config.policy_dir.empty()) && (config.workload.ns.empty() || config.workload.name.empty())) {
    return Error{"missing; expected the pod that this sidecar serves, so that its policies can be found",
                 config.workload.ns.empty() ? "workload.namespace" : "workload.name"};
  }
  if (auto valid = check_federated_bundles(identity.federated_bundles, config.mesh.trust_domain, "identity.federatedBundles"); !valid) {
    return valid.error();
  }
  if (!identity.federated_bundles.empty() && !any_identity && !is_signed) {
    return Error{"without an SVID of its own a sidecar verifies nobody; expected identity.certificate or another source of it as well",
                 "identity.federatedBundles"};
  }
  std::set<Port> ports;
  for (const auto& [path, port] : {std::pair{"listen.inbound", config.listen.inbound}, std::pair{"listen.outbound", config.listen.outbound},
                                   std::pair{"listen.health", config.listen.health}}) {
    if (port.number != 0 && !ports.insert(port).second) {
      return Error{"port " + std::to_string(port.number) + " is given twice; inbound, outbound and health need a port each", path};
    }
  }
  if (config.recycling.enabled && config.recycling.inbound_idle <= config.recycling.outbound_idle) {
    return Error{"expected longer than recycling.outboundIdle (" + config_value::print_duration(config.recycling.outbound_idle) +
                     "): the outbound side must be the one that closes an idle connection",
                 "recycling.inboundIdle"};
  }
  return {};
}

}  // namespace postern
