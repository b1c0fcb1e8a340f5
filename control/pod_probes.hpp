// Probes behind a redirect: every TCP handshake succeeds there, and the node's address is whoever comes masqueraded; so the sidecar asks
// the application in the kubelet's place.
#pragma once

#include <string>
#include <vector>

#include "base/document.hpp"

namespace postern {

// Rewrites the tcpSocket and httpGet probes and lifecycle handlers of one container to the sidecar's /app-probe/... (AppProbe; architecture
// section 2c). Ports by name are those of the container, as the kubelet resolves them. grpc and exec are left alone, and so is what asks
// the sidecar already. What names a host, has no path of this server's, or a port that cannot be resolved is left as it is, with a warning.
void rewrite_probes(Node& container, std::vector<std::string>& warnings);

}  // namespace postern
