#include "cli/connection_end.hpp"

#include <algorithm>
#include <charconv>

namespace postern::cli {
namespace {

IpAddress address_of(const ConnectionEnd& end, std::optional<IpFamily> family) {
  if (end.address) return *end.address;
  const auto& all = end.pod->addresses;
  const auto suitable = std::find_if(all.begin(), all.end(), [family](const IpAddress& a) { return a.family() == family; });
  if (suitable != all.end()) return *suitable;
  return all.empty() ? IpAddress() : all.front();
}

}  // namespace

Result<ConnectionEnd> find_end(std::string_view asked, const ClusterView& view, const Topology& topology) {
  if (asked.starts_with("spiffe:")) {
    const auto sign = std::min(asked.find('@'), asked.size());
    const auto id = SpiffeId::parse(asked.substr(0, sign));
    if (!id) return Error{"'" + std::string(asked) + "': " + id.error().message, ""};
    const auto address = sign == asked.size() ? IpAddress::parse("0.0.0.0") : IpAddress::parse(asked.substr(sign + 1));
    if (!address) return Error{"'" + std::string(asked) + "': expected an IP address behind the @", ""};
    return ConnectionEnd{.asked = std::string(asked), .pod = nullptr, .address = *address, .outsider = *id};
  }
  const auto slash = asked.find('/');
  if (slash == std::string_view::npos) {
    const auto address = IpAddress::parse(asked);
    if (!address) return Error{"'" + std::string(asked) + "' is neither namespace/pod nor an IP address", ""};
    return ConnectionEnd{.asked = std::string(asked), .pod = topology.at(*address), .address = *address};
  }
  const ObjectKey key{std::string(asked.substr(0, slash)), std::string(asked.substr(slash + 1))};
  const auto pod = view.pods.find(key);
  if (pod == view.pods.end()) return Error{"the manifests have no pod " + key.text(), ""};
  if (pod->second.ended()) return Error{"the pod " + key.text() + " has ended: it has no connections", ""};
  if (pod->second.workload.addresses.empty()) return Error{"the pod " + key.text() + " has no address (status.podIPs)", ""};
  return ConnectionEnd{.asked = std::string(asked), .pod = topology.find(key.ns, key.name), .address = std::nullopt};
}

std::pair<IpAddress, IpAddress> addresses_of(const ConnectionEnd& from, const ConnectionEnd& to) {
  const IpAddress destination = address_of(to, from.address ? std::optional(from.address->family()) : std::nullopt);
  return {address_of(from, destination.family()), destination};
}

Result<Port> parse_port(std::string_view text) {
  std::uint16_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size() || number == 0) {
    return Error{"'" + std::string(text) + "' is no port; expected 1 to 65535", ""};
  }
  return Port{number};
}

Result<Protocol> parse_protocol(std::string_view text) {
  for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp}) {
    if (name_of(protocol) == text) return protocol;
  }
  return Error{"'" + std::string(text) + "' is no protocol; expected TCP, UDP or SCTP", ""};
}

}  // namespace postern::cli
