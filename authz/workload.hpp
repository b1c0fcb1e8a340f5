// A workload record: what a sidecar knows of one pod (architecture section 4).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/ip.hpp"

namespace postern {

// What may arrive at a port (architecture section 2b). `spiffe`: plain SPIFFE mTLS without our ALPN is spoken there;
// a pod with a sidecar accepts it beside postern/1, a pod without one speaks it by itself.
enum class MtlsMode : std::uint8_t { strict, permissive, spiffe };
std::string_view name_of(MtlsMode mode);

struct NamedPort {
  std::string name;
  Protocol protocol = Protocol::tcp;
  Port port;

  bool operator==(const NamedPort&) const = default;
};

// What the path of every probe begins with that the sidecar's health port makes for the kubelet (AppProbe): /app-probe/8080.
inline constexpr std::string_view app_probe_path = "/app-probe/";

// A port that a probe or lifecycle hook of the pod names; the path of an httpGet, else empty. Of one that the injector has rewritten: the
// application's port, and the path at which the sidecar is asked for it.
struct ProbePort {
  Port port;
  std::string path;

  // Whether the node itself connects to the port, and does not ask the sidecar to.
  bool by_node() const { return !path.starts_with(app_probe_path); }
  bool operator==(const ProbePort&) const = default;
};

struct Workload {
  std::string ns;
  std::string name;
  std::string uid;  // empty in stand-alone mode when the manifest omits it
  std::string service_account;
  std::vector<IpAddress> addresses;
  bool meshed = false;        // has a sidecar
  bool host_network = false;  // never matched by selectors, never selected; its address is the node's
  MtlsMode mtls = MtlsMode::strict;
  std::vector<std::pair<Port, MtlsMode>> port_mtls;
  std::vector<Port> excluded_inbound_ports;
  std::vector<Port> excluded_outbound_ports;
  std::vector<NamedPort> named_ports;  // of containers and restartable init containers
  std::vector<ProbePort> probe_ports;

  // The number of a named port, which counts per protocol; the first container that has it decides.
  std::optional<Port> named_port(std::string_view port_name, Protocol protocol) const;
  bool has_address(const IpAddress& address) const;
  MtlsMode mtls_for(Port port) const;
  bool intercepts_inbound(Port port) const;
  bool intercepts_outbound(Port port) const;
  // Whether a probe or lifecycle hook has the node connect to that port (nodeTraffic: probes).
  bool is_probed_by_node(Port port) const;
  bool operator==(const Workload&) const;
};

}  // namespace postern
