#include "authz/decode_pod.hpp"

#include <algorithm>
#include <charconv>

#include "authz/app_probe.hpp"
#include "authz/decode_annotations.hpp"

namespace postern {
namespace {

// spec.containers[].ports[]; those without a name matter to no decision.
std::vector<NamedPort> decode_container_ports(const Field& container) {
  std::vector<NamedPort> out;
  for (const Field& item : container["ports"].items()) {
    const Field number = item["containerPort"];
    const auto port = number.port();
    if (!number.present()) number.refuse("Required value: 1 to 65535");
    const auto protocol = item["protocol"].protocol();
    const Field name = item["name"];
    const std::string text = name.string();
    if (text.empty()) continue;
    name.refuse_value(shown(text), port_name_faults(text));
    if (port && protocol) out.push_back({text, *protocol, *port});
  }
  return out;
}

// The kubelet takes a string for the name of a port of that container, and then for a number (pkg/probe, ResolveContainerPort).
std::optional<Port> resolve_probe_port(const Field& field, const std::vector<NamedPort>& ports) {
  const IntOrString value = field.int_or_string();
  if (std::holds_alternative<std::monostate>(value)) return std::nullopt;
  if (std::holds_alternative<std::int64_t>(value)) return field.port();
  const auto& text = std::get<std::string>(value);
  const auto named = std::find_if(ports.begin(), ports.end(), [&](const NamedPort& port) { return port.name == text; });
  if (named != ports.end()) return named->port;
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc() && end == text.data() + text.size() && number != 0) return Port{number};
  field.warn("this container has no port named " + shown(text) + "; the probe cannot work");
  return std::nullopt;
}

void add_probe(const std::optional<Port>& port, std::string path, std::vector<ProbePort>& out) {
  if (!port) return;
  ProbePort probe{.port = *port, .path = std::move(path)};
  if (std::find(out.begin(), out.end(), probe) == out.end()) out.push_back(std::move(probe));
}

// A probe or a lifecycle handler: httpGet, tcpSocket or grpc; exec needs no connection.
void decode_handler(const Field& field, const std::vector<NamedPort>& ports, std::vector<ProbePort>& out) {
  if (!field.present()) return;
  // One that names a host goes there, and not to this pod.
  const Field http = field["httpGet"];
  if (http.present() && http["host"].string().empty()) {
    std::string path = http["path"].string("/");
    if (!path.starts_with('/')) path.insert(path.begin(), '/');
    // The injector lets the sidecar ask in the kubelet's place (docs/injection.md): the port is the one that it asks.
    const auto application = parse_app_probe(path);
    add_probe(application ? application->port : resolve_probe_port(http["port"], ports), std::move(path), out);
  }
  const Field tcp = field["tcpSocket"];
  if (tcp.present() && tcp["host"].string().empty()) add_probe(resolve_probe_port(tcp["port"], ports), {}, out);
  add_probe(field["grpc"]["port"].port(), {}, out);
}

void decode_container(const Field& container, Workload& out) {
  const std::vector<NamedPort> ports = decode_container_ports(container);
  out.named_ports.insert(out.named_ports.end(), ports.begin(), ports.end());
  for (const char* probe : {"livenessProbe", "readinessProbe", "startupProbe"}) decode_handler(container[probe], ports, out.probe_ports);
  for (const char* hook : {"postStart", "preStop"}) decode_handler(container["lifecycle"][hook], ports, out.probe_ports);
}

void decode_spec(const Field& spec, Pod& out) {
  Workload& workload = out.workload;
  workload.host_network = spec["hostNetwork"].boolean();
  out.node_name = spec["nodeName"].string();
  const Field account = spec["serviceAccountName"];
  workload.service_account = account.string();
  if (workload.service_account.empty()) workload.service_account = spec["serviceAccount"].string();  // its old name
  if (workload.service_account.empty()) workload.service_account = "default";
  account.refuse_value(shown(workload.service_account), dns_subdomain_faults(workload.service_account));
  for (const Field& container : spec["containers"].items()) decode_container(container, workload);
  for (const Field& container : spec["initContainers"].items()) {
    if (container["restartPolicy"].string() == "Always") decode_container(container, workload);
  }
}

// status.<one> and status.<many>[].ip say the same twice; either may stand alone in a manifest.
std::vector<IpAddress> decode_addresses(const Field& status, std::string_view one, std::string_view many) {
  std::vector<IpAddress> out;
  const auto add = [&](const std::optional<IpAddress>& address) {
    if (address && std::find(out.begin(), out.end(), *address) == out.end()) out.push_back(*address);
  };
  add(status[one].address());
  for (const Field& item : status[many].items()) add(item["ip"].address());
  return out;
}

void decode_status(const Field& status, Pod& out) {
  out.workload.addresses = decode_addresses(status, "podIP", "podIPs");
  out.host_addresses = decode_addresses(status, "hostIP", "hostIPs");
  const Field phase = status["phase"];
  const std::string text = phase.string();
  if (!text.empty()) {
    bool known = false;
    for (const auto one : {PodPhase::pending, PodPhase::running, PodPhase::succeeded, PodPhase::failed, PodPhase::unknown}) {
      if (text != name_of(one)) continue;
      out.phase = one;
      known = true;
    }
    if (!known) phase.refuse(unsupported(text, {"Pending", "Running", "Succeeded", "Failed", "Unknown"}));
  }
  for (const Field& condition : status["conditions"].items()) {
    if (condition["type"].string() == "Ready") out.ready = condition["status"].string() == "True";
  }
}

}  // namespace

Pod decode_pod(const Field& object) {
  Pod out;
  ObjectMeta meta = decode_metadata(object, Scope::namespaced);
  out.workload.ns = std::move(meta.ns);
  out.workload.name = std::move(meta.name);
  out.workload.uid = std::move(meta.uid);
  out.labels = std::move(meta.labels);
  out.terminating = meta.deleted;

  const Annotations annotations(object);
  out.workload.meshed = annotations.injected();
  MtlsAnnotation mtls = annotations.mtls();
  out.mtls = mtls.mode;
  out.workload.port_mtls = std::move(mtls.ports);
  out.workload.excluded_inbound_ports = annotations.excluded_inbound_ports();
  out.workload.excluded_outbound_ports = annotations.excluded_outbound_ports();
  annotations.warn_unknown_of_pod();

  decode_spec(object["spec"], out);
  decode_status(object["status"], out);
  return out;
}

Result<Pod> decode_pod(const Document& document, std::vector<Warning>* warnings) {
  Decoding decoding(document.source);
  Pod pod = decode_pod(Field(decoding, document.root));
  if (!decoding.ok()) return decoding.error();
  if (warnings != nullptr) warnings->insert(warnings->end(), decoding.warnings().begin(), decoding.warnings().end());
  return pod;
}

}  // namespace postern
