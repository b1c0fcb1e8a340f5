#include "control/injection_settings.hpp"

#include <array>
#include <optional>

#include "base/config_values.hpp"
#include "control/quantity.hpp"

namespace postern {
namespace {

using namespace config_value;

constexpr std::array strictness_names{std::pair{std::string_view("deny"), Strictness::deny},
                                      std::pair{std::string_view("warn"), Strictness::warn}};
constexpr std::array proxy_images_names{std::pair{std::string_view("sameRepository"), ProxyImages::same_repository},
                                        std::pair{std::string_view("any"), ProxyImages::any},
                                        std::pair{std::string_view("none"), ProxyImages::none}};

template <class Value, class Access>
ConfigField<InjectionSettings> field(std::string_view path, Access access, std::string_view doc) {
  return config_field<InjectionSettings, Value>(path, access, doc);
}

std::vector<ConfigField<InjectionSettings>> make_fields() {
  using Drain = Duration<std::chrono::milliseconds, Zero::allowed>;
  return {
      field<Text>(
          "image", [](auto& s) -> auto& { return s.image; }, "Image of the sidecar, which is also that of the redirect container."),
      field<Text>(
          "imagePullPolicy", [](auto& s) -> auto& { return s.image_pull_policy; }, "Always, IfNotPresent or Never."),
      field<Choice<proxy_images_names>>(
          "proxyImages", [](auto& s) -> auto& { return s.proxy_images; },
          "What the annotation postern.dev/proxy-image may name: another tag or digest of image, anything, or nothing."),
      field<HostPortList>(
          "controlAddresses", [](auto& s) -> auto& { return s.control_addresses; }, "Where sidecars find postern-control."),
      field<HostPortList>(
          "signingAddresses", [](auto& s) -> auto& { return s.signing_addresses; }, "Where sidecars have their SVIDs signed."),
      field<TrustDomainName>(
          "trustDomain", [](auto& s) -> auto& { return s.trust_domain; }, "Trust domain of the mesh."),
      field<Count<std::uint32_t, 1, 4'000'000'000>>(
          "uid", [](auto& s) -> auto& { return s.uid; }, "The sidecar's uid and gid, which no other container may have."),
      field<Choice<strictness_names>>(
          "privileged", [](auto& s) -> auto& { return s.privileged; },
          "What happens to a pod whose containers could get around the sidecar: NET_ADMIN, NET_RAW, SYS_ADMIN, SYS_PTRACE, privileged, "
          "the sidecar's uid or gid, a shared process namespace."),
      field<Boolean>(
          "allowOptOut", [](auto& s) -> auto& { return s.allow_opt_out; },
          "A pod labelled postern.dev/inject: disabled is left alone. false: it is injected all the same, with a warning."),
      field<Boolean>(
          "requireContained", [](auto& s) -> auto& { return s.require_contained; },
          "Deny pods with a container that may run as root with SETUID, and so could take the sidecar's uid."),
      field<Text>(
          "resources.cpuRequest", [](auto& s) -> auto& { return s.resources.cpu_request; }, "CPU request of the sidecar; empty: none."),
      field<Text>(
          "resources.cpuLimit", [](auto& s) -> auto& { return s.resources.cpu_limit; }, "CPU limit; empty: none."),
      field<Text>(
          "resources.memoryRequest", [](auto& s) -> auto& { return s.resources.memory_request; }, "Memory request; empty: none."),
      field<Text>(
          "resources.memoryLimit", [](auto& s) -> auto& { return s.resources.memory_limit; }, "Memory limit; empty: none."),
      field<Choice<log_levels>>(
          "logLevel", [](auto& s) -> auto& { return s.log_level; }, "Of the sidecars' own log."),
      field<Drain>(
          "drainPeriod", [](auto& s) -> auto& { return s.drain_period; },
          "How long a sidecar lets open connections go on once the pod's other containers have ended."),
  };
}

}  // namespace

const ConfigTable<InjectionSettings>& injection_settings_table() {
  static const ConfigTable<InjectionSettings> table{make_fields(), {{"resources", "Of the sidecar, as Kubernetes quantities."}}};
  return table;
}

Result<void> validate(const InjectionSettings& settings) {
  if (settings.image.empty()) return Error{"missing; expected the sidecar's image", "image"};
  if (settings.trust_domain.text().empty())
    return Error{"missing; expected the trust domain of the mesh, such as cluster.local", "trustDomain"};
  if (settings.signing_addresses.empty()) return Error{"missing; expected host:port of postern-control", "signingAddresses"};
  if (settings.control_addresses.empty()) return Error{"missing; expected host:port of postern-control", "controlAddresses"};
  if (settings.image_pull_policy != "Always" && settings.image_pull_policy != "IfNotPresent" && settings.image_pull_policy != "Never") {
    return Error{"\"" + settings.image_pull_policy + "\": expected Always, IfNotPresent or Never", "imagePullPolicy"};
  }
  const auto& r = settings.resources;
  for (const auto& [name, value] :
       {std::pair{"resources.cpuRequest", &r.cpu_request}, std::pair{"resources.cpuLimit", &r.cpu_limit},
        std::pair{"resources.memoryRequest", &r.memory_request}, std::pair{"resources.memoryLimit", &r.memory_limit}}) {
    if (!value->empty() && !parse_quantity(*value)) return Error{"\"" + *value + "\": expected a quantity such as 100m or 64Mi", name};
  }
  return {};
}

}  // namespace postern
