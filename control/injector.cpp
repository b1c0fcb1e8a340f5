#include "control/injector.hpp"

#include <algorithm>
#include <array>

#include "authz/decode_common.hpp"
#include "base/document_writer.hpp"
#include "control/injection_options.hpp"
#include "control/pod_probes.hpp"
#include "control/pod_security.hpp"
#include "control/sidecar_spec.hpp"

namespace postern {
namespace {

std::string name_of_item(const Node& item) {
  const Node* name = item.find("name");
  return name == nullptr ? std::string() : name->scalar;
}

bool is_ours(const Node& container) {
  const std::string name = name_of_item(container);
  return name == redirect_container || name == sidecar_container;
}

bool is_our_volume(std::string_view name) { return name == state_volume || name == token_volume; }

void check_handler(const Field& handler) {
  (void)handler["tcpSocket"]["host"].string();
  const Field http = handler["httpGet"];
  for (const char* text : {"host", "path", "scheme"}) (void)http[text].string();
}

// What of a spec we read or change must have the type that the API gives it.
void check_shape(const Field& spec) {
  if (!spec.present()) spec.refuse("Required value: a pod needs a spec");
  (void)spec["hostNetwork"].boolean();
  (void)spec["volumes"].items();
  if (spec["containers"].items().empty()) spec["containers"].refuse("Required value: a pod needs a container");
  (void)spec["securityContext"].is_mapping();
  for (const char* list : {"initContainers", "containers", "ephemeralContainers"}) {
    for (const Field& container : spec[list].items()) {
      (void)container["name"].string();
      (void)container["lifecycle"].is_mapping();
      const Field capabilities = container["securityContext"]["capabilities"];
      for (const char* which : {"add", "drop"}) {
        for (const Field& item : capabilities[which].items()) (void)item.string();
      }
      for (const Field& item : container["volumeMounts"].items()) (void)item["name"].string();
      for (const Field& item : container["ports"].items()) (void)item["name"].string();
      for (const char* probe : {"livenessProbe", "readinessProbe", "startupProbe"}) check_handler(container[probe]);
      for (const char* hook : {"postStart", "preStop"}) check_handler(container["lifecycle"][hook]);
    }
  }
}

// Our names are ours: a container that had one, or mounted one of our volumes, would have the sidecar's key or token.
void check_names(const Field& spec) {
  for (const char* list : {"containers", "ephemeralContainers", "initContainers"}) {
    for (const Field& container : spec[list].items()) {
      const bool may_be_ours = std::string_view(list) == "initContainers" && is_ours(container.node());
      if (may_be_ours) continue;
      if (is_ours(container.node())) container["name"].refuse("Invalid value: this name belongs to the injector; choose another");
      for (const Field& item : container["volumeMounts"].items()) {
        if (is_our_volume(item["name"].string())) item["name"].refuse("Forbidden: this volume is the sidecar's alone; remove the mount");
      }
    }
  }
}

// Why a pod is not for us, or empty.
std::string why_left_alone(const Field& pod, const InjectionOptions& options, const InjectionSettings& settings) {
  const Field spec = pod["spec"];
  if (spec["hostNetwork"].boolean()) return "host_network";
  if (spec["os"]["name"].string() == "windows") return "windows";
  // A static pod's mirror: the kubelet runs it from a file of its own, whatever we say.
  if (pod["metadata"]["annotations"].strings().contains("kubernetes.io/config.mirror")) return "static_pod";
  if (options.inject == false && settings.allow_opt_out) return "opted_out";
  return {};
}

void put_annotation(Node& pod, std::string_view name, std::string_view value) {
  Node& annotations = field_of(field_of(pod, "metadata"), "annotations");
  field_of(annotations, name) = make_text(value);
}

// Ours first, redirect before sidecar, each as it was where nothing of it matters differs.
void put_init_containers(Node& spec, const InjectionOptions& options, const InjectionSettings& settings) {
  Node& list = field_of(spec, "initContainers");
  std::vector<Node> wanted{redirect_container_spec(options, settings), sidecar_container_spec(options, settings)};
  for (Node& one : wanted) {
    const auto found =
        std::find_if(list.items.begin(), list.items.end(), [&](const Node& item) { return name_of_item(item) == name_of_item(one); });
    if (found != list.items.end() && is_container_as_injected(one, *found)) one = *found;
  }
  std::erase_if(list.items, is_ours);
  list.items.insert(list.items.begin(), wanted.begin(), wanted.end());
  list.kind = Node::Kind::sequence;
}

void put_volumes(Node& spec) {
  Node& list = field_of(spec, "volumes");
  list.kind = Node::Kind::sequence;
  for (const Node& wanted : {state_volume_spec(), token_volume_spec()}) {
    const std::string name = name_of_item(wanted);
    const auto found = std::find_if(list.items.begin(), list.items.end(), [&](const Node& item) { return name_of_item(item) == name; });
    if (found == list.items.end()) {
      list.items.push_back(wanted);
    } else if (!same_value(*found, wanted)) {
      *found = wanted;
    }
  }
}

void change_others(Node& spec, std::vector<std::string>& warnings) {
  for (const std::string_view list : {"initContainers", "containers"}) {
    if (spec.find(list) == nullptr) continue;
    for (Node& container : field_of(spec, list).items) {
      if (list == "initContainers" && is_ours(container)) continue;
      drop_net_raw(container);
      rewrite_probes(container, warnings);
    }
  }
}

std::string list_of(const std::vector<std::string>& names) {
  std::string out;
  for (const std::string& name : names) out.append(out.empty() ? "" : ", ").append(name);
  return out;
}

// Denies what the settings deny, and warns of what they let pass.
std::string judge(const Node& spec, const InjectionSettings& settings, Injection& out) {
  const PodSecurity security = judge_pod_security(spec, settings.uid);
  out.bypassable = security.bypassable;
  if (!security.escapes.empty()) {
    const std::string what = "could get around its sidecar: " + security.escapes.front() +
                             (security.escapes.size() == 1 ? "" : " (and " + std::to_string(security.escapes.size() - 1) + " more)");
    if (settings.privileged == Strictness::deny) return "this pod " + what;
    out.warnings.push_back("this pod " + what);
  }
  if (security.bypassable.empty()) return {};
  const std::string what = "may run as root with SETUID and so get around the sidecar's egress: " + list_of(security.bypassable) +
                           "; set runAsNonRoot: true (or runAsUser), or drop SETUID";
  if (settings.require_contained) return "containers " + what;
  return {};
}

void warn_of_grace_period(const Field& spec, const InjectionOptions& options, std::vector<std::string>& warnings) {
  constexpr std::int64_t kDefault = 30;
  const std::int64_t grace_s = spec["terminationGracePeriodSeconds"].integer().value_or(kDefault);
  if (options.drain_period <= std::chrono::seconds{grace_s}) return;
  warnings.push_back("terminationGracePeriodSeconds is " + std::to_string(grace_s) +
                     ", shorter than the sidecar's drain period (annotation postern.dev/drain-period): connections may be cut");
}

}  // namespace

Injection inject(const Node& pod, const InjectionSettings& settings) {
  Injection out;
  out.pod = pod;
  const auto denied = [&](std::string reason) {
    out.outcome = Injection::Outcome::denied;
    out.reason = std::move(reason);
    out.pod = pod;
    return out;
  };
  Decoding decoding("pod");
  const Field field(decoding, pod);
  if (!field.is_mapping()) return denied(decoding.error().message);
  check_shape(field["spec"]);
  const InjectionOptions options = read_injection_options(field, settings);
  // Without the line: an API server's JSON has one.
  const auto first_error = [&] {
    const std::string text = decoding.error().text();
    return text.substr(std::min(text.find(": "), text.size() - 2) + 2);
  };
  if (!decoding.ok()) return denied(first_error());
  for (const Warning& warning : decoding.warnings()) out.warnings.push_back(warning.message);
  out.reason = why_left_alone(field, options, settings);
  if (!out.reason.empty()) return out;
  if (options.inject == false)
    out.warnings.push_back("the label postern.dev/inject: disabled is not honoured: the mesh permits no opting out");
  check_names(field["spec"]);
  if (!decoding.ok()) return denied(first_error());
  if (std::string reason = judge(*pod.find("spec"), settings, out); !reason.empty()) return denied(std::move(reason));
  warn_of_grace_period(field["spec"], options, out.warnings);

  Node& spec = field_of(out.pod, "spec");
  change_others(spec, out.warnings);
  put_init_containers(spec, options, settings);
  put_volumes(spec);
  put_annotation(out.pod, injected_annotation, "true");
  put_annotation(out.pod, egress_annotation, out.bypassable.empty() ? "contained" : "bypassable");
  out.outcome = Injection::Outcome::injected;
  return out;
}

std::string_view name_of(Injection::Outcome outcome) {
  switch (outcome) {
    case Injection::Outcome::injected: return "injected";
    case Injection::Outcome::left_alone: return "left_alone";
    case Injection::Outcome::denied: return "denied";
  }
  return "";
}

}  // namespace postern
