#include "authz/workload.hpp"

#include <algorithm>

namespace postern {
namespace {

bool contains(const std::vector<Port>& ports, Port port) { return std::find(ports.begin(), ports.end(), port) != ports.end(); }

}  // namespace

std::string_view name_of(MtlsMode mode) {
  switch (mode) {
    case MtlsMode::strict: return "strict";
    case MtlsMode::permissive: return "permissive";
    case MtlsMode::spiffe: return "spiffe";
  }
  return "";
}

std::optional<Port> Workload::named_port(std::string_view port_name, Protocol protocol) const {
  for (const NamedPort& named : named_ports) {
    if (named.protocol == protocol && named.name == port_name) return named.port;
  }
  return std::nullopt;
}

bool Workload::has_address(const IpAddress& address) const {
  return std::find(addresses.begin(), addresses.end(), address) != addresses.end();
}

MtlsMode Workload::mtls_for(Port port) const {
  for (const auto& [number, mode] : port_mtls) {
    if (number == port) return mode;
  }
  return mtls;
}

bool Workload::intercepts_inbound(Port port) const { return meshed && !contains(excluded_inbound_ports, port); }

bool Workload::intercepts_outbound(Port port) const { return meshed && !contains(excluded_outbound_ports, port); }

bool Workload::is_probed_by_node(Port port) const {
  return std::any_of(probe_ports.begin(), probe_ports.end(),
                     [port](const ProbePort& probe) { return probe.port == port && probe.by_node(); });
}

bool Workload::operator==(const Workload&) const = default;

}  // namespace postern
