// What one pod asks of its injection: label and annotations, checked. A value that is none of the expected ones denies the pod.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "authz/decode_common.hpp"
#include "base/ip.hpp"
#include "base/log.hpp"
#include "control/injection_settings.hpp"

namespace postern {

inline constexpr std::string_view inject_label = "postern.dev/inject";  // on Namespaces and Pods: enabled; on Pods also: disabled
inline constexpr std::string_view injected_annotation = "postern.dev/injected";
inline constexpr std::string_view egress_annotation = "postern.dev/egress";  // written: contained | bypassable

struct InjectionOptions {
  std::optional<bool> inject;  // the label; nothing: it has none
  std::vector<Port> exclude_inbound_ports;
  std::vector<Port> exclude_outbound_ports;
  std::vector<std::string> exclude_cidrs;
  std::string image;
  std::string cpu_request, cpu_limit, memory_request, memory_limit;
  LogLevel log_level = LogLevel::info;
  std::chrono::milliseconds drain_period{0};
};

// Reads metadata.labels and metadata.annotations over the settings. What is wrong is refused in the object's Decoding, naming the
// annotation and what it may be.
InjectionOptions read_injection_options(const Field& pod, const InjectionSettings& settings);

}  // namespace postern
