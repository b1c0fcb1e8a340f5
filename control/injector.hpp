// The injector: what a pod becomes so that every TCP connection of it goes through its sidecar. Pure; the webhook and `posternctl inject`
// call it.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "control/injection_settings.hpp"

namespace postern {

struct Injection {
  enum class Outcome : std::uint8_t { injected, left_alone, denied };

  Outcome outcome = Outcome::left_alone;
  std::string reason;                   // left alone: a word (host_network); denied: what is wrong, where, and the remedy
  Node pod;                             // as it is to be; unchanged unless injected
  std::vector<std::string> warnings;    // for the pod's author
  std::vector<std::string> bypassable;  // containers that may get around the sidecar's egress (docs/injection.md)
};

// A pod, or the template of a workload: { metadata, spec }. Doing it again changes nothing: what the injector added before is compared with
// what it would add now and replaced where it differs, and containers that another webhook has added since are treated as the first ones
// were.
Injection inject(const Node& pod, const InjectionSettings& settings);

std::string_view name_of(Injection::Outcome outcome);  // injected, left_alone, denied

}  // namespace postern
