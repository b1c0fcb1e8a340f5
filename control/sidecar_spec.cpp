#include "control/sidecar_spec.hpp"

#include <algorithm>

#include "authz/workload.hpp"
#include "base/config_values.hpp"
#include "base/document_writer.hpp"
#include "control/quantity.hpp"

namespace postern {
namespace {

constexpr std::string_view kState = "/run/postern";
constexpr std::string_view kToken = "/run/secrets/postern.dev";
constexpr std::string_view kAccountToken = "/var/run/secrets/kubernetes.io/serviceaccount";
constexpr int kTokenSeconds = 3600;
constexpr int kFileMode = 0644;  // 420 in JSON: readable by the sidecar's uid; no other container mounts it

Node texts(const std::vector<std::string>& values) {
  Node out = make_list({});
  for (const std::string& value : values) out.items.push_back(make_text(value));
  return out;
}

Node resources_of(const InjectionOptions& options) {
  Node out = make_object({});
  const auto add = [&](std::string_view kind, std::string_view name, const std::string& value) {
    if (!value.empty()) field_of(field_of(out, kind), name) = make_text(value);
  };
  add("limits", "cpu", options.cpu_limit);
  add("limits", "memory", options.memory_limit);
  add("requests", "cpu", options.cpu_request);
  add("requests", "memory", options.memory_request);
  return out;
}

Node http_probe(std::string_view path, int period_s, int failures) {
  return make_object(
      {{"failureThreshold", make_integer(failures)},
       {"httpGet",
        make_object({{"path", make_text(path)}, {"port", make_integer(sidecar_health_port.number)}, {"scheme", make_text("HTTP")}})},
       {"periodSeconds", make_integer(period_s)},
       {"successThreshold", make_integer(1)},
       {"timeoutSeconds", make_integer(2)}});
}

Node of_the_pod(std::string_view name, std::string_view path) {
  return make_object(
      {{"name", make_text(name)},
       {"valueFrom", make_object({{"fieldRef", make_object({{"apiVersion", make_text("v1")}, {"fieldPath", make_text(path)}})}})}});
}

Node mount(std::string_view volume, std::string_view path, bool read_only) {
  Node out = make_object({{"name", make_text(volume)}, {"mountPath", make_text(path)}});
  if (read_only) field_of(out, "readOnly") = make_boolean(true);
  return out;
}

// What both containers have in common; the API's defaults at the end.
Node container(std::string_view name, const InjectionOptions& options, const InjectionSettings& settings,
               std::vector<std::string> command) {
  return make_object({{"name", make_text(name)},
                      {"image", make_text(options.image)},
                      {"imagePullPolicy", make_text(settings.image_pull_policy)},
                      {"command", texts(command)},
                      {"resources", resources_of(options)},
                      {"terminationMessagePath", make_text("/dev/termination-log")},
                      {"terminationMessagePolicy", make_text("FallbackToLogsOnError")}});
}

template <class T, class Text>
std::string joined(const std::vector<T>& values, Text text) {
  std::string out;
  for (const T& value : values) out.append(out.empty() ? "" : ",").append(text(value));
  return out;
}

// The sidecar's configuration, as JSON, which is YAML too. The kubelet puts the pod's name into it: a Deployment's pods have none yet.
std::string sidecar_config(const InjectionOptions& options, const InjectionSettings& settings) {
  const Node config = make_object({
      {"workload", make_object({{"namespace", make_text("$(POSTERN_POD_NAMESPACE)")}, {"name", make_text("$(POSTERN_POD_NAME)")}})},
      {"listen", make_object({{"adminSocket", make_text(std::string(kState) + "/admin.sock")}})},
      {"identity", make_object({{"controlPlane", make_object({{"addresses", texts(settings.signing_addresses)},
                                                              {"tokenFile", make_text(std::string(kToken) + "/token")},
                                                              {"roots", make_text(settings.trust_roots)}})}})},
      {"control", make_object({{"addresses", texts(settings.control_addresses)}, {"stateDir", make_text(kState)}})},
      {"mesh", make_object({{"trustDomain", make_text(settings.trust_domain.text())}})},
      {"drainPeriod", make_text(config_value::print_duration(options.drain_period))},
      {"logLevel", make_text(name_of(options.log_level))},
  });
  return json_text(config);
}

bool same_quantities(const Node& expected, const Node& actual) {
  return std::all_of(expected.fields.begin(), expected.fields.end(), [&](const auto& field) {
    const Node* found = actual.find(field.first);
    if (found == nullptr) return false;
    const auto wanted = parse_quantity(field.second.scalar);
    return same_value(field.second, *found) || (wanted && wanted == parse_quantity(found->scalar));
  });
}

bool same_resources(const Node& expected, const Node& actual) {
  return std::all_of(expected.fields.begin(), expected.fields.end(), [&](const auto& field) {
    const Node* found = actual.find(field.first);
    return found != nullptr && same_quantities(field.second, *found);
  });
}

bool same_mounts(const Node& expected, const Node& actual) {
  if (actual.items.size() < expected.items.size()) return false;
  for (std::size_t i = 0; i < actual.items.size(); ++i) {
    if (i < expected.items.size()) {
      if (!same_value(expected.items[i], actual.items[i])) return false;
      continue;
    }
    const Node* path = actual.items[i].find("mountPath");
    if (path == nullptr || path->scalar != kAccountToken) return false;
  }
  return true;
}

}  // namespace

Node redirect_container_spec(const InjectionOptions& options, const InjectionSettings& settings) {
  const auto number = [](Port port) { return std::to_string(port.number); };
  std::vector<std::string> command{"postern-proxy", "redirect", "install", "--uid=" + std::to_string(settings.uid)};
  if (!options.exclude_inbound_ports.empty()) command.push_back("--exclude-inbound-ports=" + joined(options.exclude_inbound_ports, number));
  if (!options.exclude_outbound_ports.empty())
    command.push_back("--exclude-outbound-ports=" + joined(options.exclude_outbound_ports, number));
  if (!options.exclude_cidrs.empty())
    command.push_back("--exclude-cidrs=" + joined(options.exclude_cidrs, [](const auto& s) { return s; }));
  Node out = container(redirect_container, options, settings, std::move(command));
  // iptables-legacy takes a lock in a file; nothing else of the root filesystem can be written.
  field_of(out, "env") = make_list({make_object({{"name", make_text("XTABLES_LOCKFILE")}, {"value", make_text("/dev/shm/xtables.lock")}})});
  field_of(out, "securityContext") =
      make_object({{"allowPrivilegeEscalation", make_boolean(false)},
                   {"capabilities", make_object({{"add", texts({"NET_ADMIN", "NET_RAW"})}, {"drop", texts({"ALL"})}})},
                   {"privileged", make_boolean(false)},
                   {"readOnlyRootFilesystem", make_boolean(true)},
                   {"runAsGroup", make_integer(0)},
                   {"runAsNonRoot", make_boolean(false)},
                   {"runAsUser", make_integer(0)},
                   {"seccompProfile", make_object({{"type", make_text("RuntimeDefault")}})}});
  return out;
}

Node sidecar_container_spec(const InjectionOptions& options, const InjectionSettings& settings) {
  Node out = container(sidecar_container, options, settings, {"postern-proxy", "--config-env", "POSTERN_CONFIG"});
  field_of(out, "restartPolicy") = make_text("Always");
  field_of(out, "env") =
      make_list({of_the_pod("POSTERN_POD_NAMESPACE", "metadata.namespace"), of_the_pod("POSTERN_POD_NAME", "metadata.name"),
                 make_object({{"name", make_text("POSTERN_CONFIG")}, {"value", make_text(sidecar_config(options, settings))}})});
  field_of(out, "ports") = make_list({make_object({{"name", make_text("postern-health")},
                                                   {"containerPort", make_integer(sidecar_health_port.number)},
                                                   {"protocol", make_text("TCP")}})});
  // Two minutes for the first SVID and policies; then the kubelet starts it anew. Everything else of the pod waits for it.
  field_of(out, "startupProbe") = http_probe("/readyz", 1, 120);
  field_of(out, "readinessProbe") = http_probe("/readyz", 5, 3);
  const auto uid = static_cast<std::int64_t>(settings.uid);
  field_of(out, "securityContext") = make_object({{"allowPrivilegeEscalation", make_boolean(false)},
                                                  {"capabilities", make_object({{"drop", texts({"ALL"})}})},
                                                  {"privileged", make_boolean(false)},
                                                  {"readOnlyRootFilesystem", make_boolean(true)},
                                                  {"runAsGroup", make_integer(uid)},
                                                  {"runAsNonRoot", make_boolean(true)},
                                                  {"runAsUser", make_integer(uid)},
                                                  {"seccompProfile", make_object({{"type", make_text("RuntimeDefault")}})}});
  field_of(out, "volumeMounts") = make_list({mount(state_volume, kState, false), mount(token_volume, kToken, true)});
  return out;
}

Node state_volume_spec() {
  return make_object(
      {{"name", make_text(state_volume)}, {"emptyDir", make_object({{"medium", make_text("Memory")}, {"sizeLimit", make_text("64Mi")}})}});
}

Node token_volume_spec() {
  const Node token = make_object(
      {{"audience", make_text("postern-control")}, {"expirationSeconds", make_integer(kTokenSeconds)}, {"path", make_text("token")}});
  return make_object({{"name", make_text(token_volume)},
                      {"projected", make_object({{"defaultMode", make_integer(kFileMode)},
                                                 {"sources", make_list({make_object({{"serviceAccountToken", token}})})}})}});
}

bool is_container_as_injected(const Node& expected, const Node& actual) {
  const auto matches = [&](const auto& field) {
    const auto& [key, value] = field;
    const Node* found = actual.find(key);
    if (found == nullptr) return value.fields.empty() && key == "resources";
    if (key == "resources") return same_resources(value, *found);
    if (key == "volumeMounts") return same_mounts(value, *found);
    return key == "imagePullPolicy" || same_value(value, *found);  // an admission plugin may ask for another policy, of the same image
  };
  const auto is_known = [&](const auto& field) {
    if (expected.find(field.first) != nullptr) return true;
    const bool is_account_token = field.first == "volumeMounts" && same_mounts(make_list({}), field.second);
    return is_account_token;
  };
  return std::all_of(expected.fields.begin(), expected.fields.end(), matches) &&
         std::all_of(actual.fields.begin(), actual.fields.end(), is_known);
}

}  // namespace postern
