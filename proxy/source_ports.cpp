#include "proxy/source_ports.hpp"

#include <algorithm>
#include <bitset>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>

namespace postern {
namespace {

constexpr std::chrono::seconds unit{4};

// Never 0, and back at the same number after 255 units: a port is then taken for a recent one, which costs nothing.
std::uint8_t in_units(std::chrono::steady_clock::time_point now) {
  return static_cast<std::uint8_t>(now.time_since_epoch() / unit % 255 + 1);
}

std::optional<std::uint16_t> take_port(std::string_view& text) {
  std::uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc{}) return std::nullopt;
  text.remove_prefix(static_cast<std::size_t>(end - text.data()));
  return port;
}

// "8080,9148-9150"
std::bitset<65536> parse_reserved(std::string_view text) {
  std::bitset<65536> reserved;
  while (const auto first = take_port(text)) {
    std::uint16_t last = *first;
    if (text.starts_with('-')) {
      text.remove_prefix(1);
      last = take_port(text).value_or(last);
    }
    for (std::uint32_t port = *first; port <= last; ++port) reserved.set(port);
    if (!text.starts_with(',')) break;
    text.remove_prefix(1);
  }
  return reserved;
}

std::string read_sysctl(const char* path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

}  // namespace

SourcePorts::SourcePorts(std::string_view range, std::string_view reserved) {
  const auto first = take_port(range);
  range.remove_prefix(std::min(range.find_first_not_of(" \t"), range.size()));
  const auto last = take_port(range);
  if (!first || !last) return;
  const std::bitset<65536> left_out = parse_reserved(reserved);
  for (std::uint32_t port = *first + 1U; port <= *last; port += 2) {
    if (!left_out.test(port)) candidates_.push_back(Port{static_cast<std::uint16_t>(port)});
  }
}

std::unique_ptr<SourcePorts> SourcePorts::of_this_namespace() {
  return std::make_unique<SourcePorts>(read_sysctl("/proc/sys/net/ipv4/ip_local_port_range"),
                                       read_sysctl("/proc/sys/net/ipv4/ip_local_reserved_ports"));
}

void SourcePorts::ended(Port port, std::chrono::steady_clock::time_point now) {
  ended_[port.number].store(in_units(now), std::memory_order_relaxed);
}

bool SourcePorts::ended_lately(Port port, std::chrono::steady_clock::time_point now) const {
  const std::uint8_t then = ended_[port.number].load(std::memory_order_relaxed);
  return then != 0 && (in_units(now) + 255 - then) % 255 <= memory / unit;
}

SourcePortTurn::SourcePortTurn(SourcePorts& ports, std::uint32_t seed)
    : ports_(ports), random_(seed | 1U), at_(ports.candidates().empty() ? 0 : seed % ports.candidates().size()) {}

std::optional<Port> SourcePortTurn::next(std::chrono::steady_clock::time_point now) {
  const std::vector<Port>& candidates = ports_.candidates();
  if (candidates.empty()) return std::nullopt;
  constexpr int tries = 32;
  constexpr std::uint32_t longest_step = 16;
  for (int i = 0; i < tries; ++i) {
    random_ ^= random_ << 13U, random_ ^= random_ >> 17U, random_ ^= random_ << 5U;  // xorshift32 (Marsaglia, 2003)
    at_ = (at_ + 1 + random_ % longest_step) % candidates.size();
    if (!ports_.ended_lately(candidates[at_], now)) return candidates[at_];
  }
  return std::nullopt;
}

}  // namespace postern
