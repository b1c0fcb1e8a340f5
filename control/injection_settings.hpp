// InjectionSettings: what the injector puts into pods and what it refuses. One file for postern-control and for `posternctl inject`.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/config_table.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "base/spiffe_id.hpp"

namespace postern {

// What happens to a pod that can get around its own sidecar by the rights it asks for.
enum class Strictness : std::uint8_t { deny, warn };
// Which images the annotation postern.dev/proxy-image may name.
enum class ProxyImages : std::uint8_t { same_repository, any, none };

struct InjectionSettings {
  std::string image = "postern/postern-proxy:0.1.0";
  std::string image_pull_policy = "IfNotPresent";
  ProxyImages proxy_images = ProxyImages::same_repository;
  std::vector<std::string> control_addresses{"postern-control.postern-system.svc:15010"};
  std::vector<std::string> signing_addresses{"postern-control.postern-system.svc:15012"};
  TrustDomain trust_domain;
  std::string trust_roots;  // PEM, into the pod's own spec; not a field of the file: --trust-roots, or the control plane's own
  std::uint32_t uid = 1337;
  Strictness privileged = Strictness::deny;
  bool allow_opt_out = true;
  bool require_contained = false;
  struct {  // Kubernetes quantities; empty: none
    std::string cpu_request = "10m";
    std::string cpu_limit;
    std::string memory_request = "32Mi";
    std::string memory_limit = "256Mi";
  } resources;
  LogLevel log_level = LogLevel::info;
  std::chrono::milliseconds drain_period{20'000};  // shorter than Kubernetes' default grace period, which it is part of
};

const ConfigTable<InjectionSettings>& injection_settings_table();
// What no single field can say. Errors name the field.
Result<void> validate(const InjectionSettings& settings);

}  // namespace postern
