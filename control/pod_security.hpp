// Which containers of a pod could get around its sidecar, by the rights that they ask for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/document.hpp"

namespace postern {

struct PodSecurity {
  std::vector<std::string> escapes;  // a right to change the redirection or to be the sidecar: "container debug adds NET_ADMIN; remove it"
  std::vector<std::string> bypassable;  // containers that may run as root with SETUID, and so could take the sidecar's uid
};

// Judges a pod's spec but for the injector's own containers; ephemeral ones too. `uid` is the sidecar's uid and gid.
PodSecurity judge_pod_security(const Node& spec, std::uint32_t uid);

// Drops NET_RAW, unless it is dropped already, or asked for (which judge_pod_security reports).
void drop_net_raw(Node& container);

}  // namespace postern
