// Probes behind a redirect: every TCP handshake succeeds there, so the sidecar asks the application in the place of a tcpSocket.
#pragma once

#include <string>
#include <vector>

#include "base/document.hpp"

namespace postern {

// Rewrites the tcpSocket probes and lifecycle handlers of one container to the sidecar's /app-probe/<port> (architecture section 2c). Ports
// by name are those of the container, as the kubelet resolves them. What names a host goes there and is left alone; so are httpGet, grpc
// and exec. What cannot be resolved is left as it is, with a warning.
void rewrite_probes(Node& container, std::vector<std::string>& warnings);

}  // namespace postern
