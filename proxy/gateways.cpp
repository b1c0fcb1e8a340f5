#include "proxy/gateways.hpp"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstdint>
#include <optional>
#include <string>

#include "base/document_files.hpp"

namespace postern {

namespace {

constexpr std::size_t routes_bytes_max = 4U << 20;
constexpr std::uint32_t up_with_gateway = 0x3;  // RTF_UP, RTF_GATEWAY: <linux/route.h>

std::optional<std::uint32_t> hexadecimal(std::string_view text) {
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::vector<std::string_view> fields_of(std::string_view line) {
  std::vector<std::string_view> fields;
  while (true) {
    line.remove_prefix(std::min(line.find_first_not_of(" \t"), line.size()));
    if (line.empty()) return fields;
    const std::size_t length = std::min(line.find_first_of(" \t"), line.size());
    fields.push_back(line.substr(0, length));
    line.remove_prefix(length);
  }
}

bool is_gateway(std::string_view flags) {
  const auto value = hexadecimal(flags);
  return value && (*value & up_with_gateway) == up_with_gateway;
}

// Iface Destination Gateway Flags RefCnt Use Metric Mask ...: addresses as the host's words.
std::optional<IpAddress> v4_gateway(const std::vector<std::string_view>& fields) {
  if (fields.size() < 8 || hexadecimal(fields[1]) != 0U || hexadecimal(fields[7]) != 0U || !is_gateway(fields[3])) return std::nullopt;
  const auto word = hexadecimal(fields[2]);
  if (!word || fields[2].size() != 8) return std::nullopt;
  return IpAddress::v4(std::bit_cast<std::array<std::uint8_t, 4>>(*word));
}

// destination, its prefix, source, its prefix, next hop, metric, references, use, flags, interface: addresses as 32 digits in network
// order.
std::optional<IpAddress> v6_gateway(const std::vector<std::string_view>& fields) {
  if (fields.size() < 10 || hexadecimal(fields[1]) != 0U || !is_gateway(fields[8]) || fields[4].size() != 32) return std::nullopt;
  std::array<std::uint8_t, 16> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    const auto byte = hexadecimal(fields[4].substr(2 * i, 2));
    if (!byte) return std::nullopt;
    bytes[i] = static_cast<std::uint8_t>(*byte);
  }
  return IpAddress::v6(bytes);
}

template <class Read>
void add_from(std::string_view text, Read&& read, std::vector<IpAddress>& out) {
  while (!text.empty()) {
    const std::size_t length = std::min(text.find('\n'), text.size());
    if (const auto gateway = read(fields_of(text.substr(0, length)))) out.push_back(*gateway);
    text.remove_prefix(std::min(length + 1, text.size()));
  }
}

}  // namespace

std::vector<IpAddress> gateways_in(std::string_view v4_routes, std::string_view v6_routes) {
  std::vector<IpAddress> out;
  add_from(v4_routes, v4_gateway, out);
  add_from(v6_routes, v6_gateway, out);
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return out;
}

std::vector<IpAddress> default_gateways() {
  const auto v4 = read_file("/proc/net/route", routes_bytes_max);
  const auto v6 = read_file("/proc/net/ipv6_route", routes_bytes_max);
  return gateways_in(v4 ? *v4 : std::string(), v6 ? *v6 : std::string());
}

}  // namespace postern
