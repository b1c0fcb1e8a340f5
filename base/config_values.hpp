// How one value of the configuration is read from a document, printed, and described to people: a type per kind of value.
// Each has read(node), print(value) and describe() ("duration, more than 0"); errors say what is expected, with an example.
#pragma once

#include <array>
#include <chrono>
#include <concepts>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/document.hpp"
#include "base/ip.hpp"
#include "base/log.hpp"
#include "base/result.hpp"
#include "base/spiffe_id.hpp"

namespace postern::config_value {

// "expected <what>; found <what the node holds>"
Error ill_typed(const Node& node, std::string_view expected);

Result<std::int64_t> read_integer(const Node& node, std::int64_t min, std::int64_t max);
// "1h30m", "500ms" and plain 0; at most 366 days.
Result<std::chrono::milliseconds> read_duration(const Node& node, bool zero_allowed, std::chrono::milliseconds unit);
// In the largest unit that says it exactly: 90s, 1500ms, 1m, 0s.
std::string print_duration(std::chrono::milliseconds value);
// A double-quoted scalar, valid in YAML and JSON.
// Called by its full name: with a std::string, a bare one would mean std::quoted as well.
std::string quoted(std::string_view text);

struct Text {
  static Result<std::string> read(const Node& node);
  static std::string print(const std::string& value) { return config_value::quoted(value); }
  static std::string describe() { return "string"; }
};

// A Kubernetes object name: DNS-1123 subdomain (RFC 1123); empty: not set.
struct ObjectName {
  static Result<std::string> read(const Node& node);
  static std::string print(const std::string& value) { return config_value::quoted(value); }
  static std::string describe() { return "Kubernetes name"; }
};

// The path of a unix socket: at most 107 bytes (sockaddr_un); empty: none.
struct SocketPath {
  static Result<std::string> read(const Node& node);
  static std::string print(const std::string& value) { return config_value::quoted(value); }
  static std::string describe() { return "path"; }
};

struct Path : Text {
  static std::string describe() { return "path"; }
};

// Key exchange groups as OpenSSL names them, joined by colons.
struct Groups {
  static Result<std::string> read(const Node& node);
  static std::string print(const std::string& value) { return config_value::quoted(value); }
  static std::string describe() { return "group names joined by ':'"; }
};

struct Boolean {
  static Result<bool> read(const Node& node);
  static std::string print(bool value) { return value ? "true" : "false"; }
  static std::string describe() { return "true or false"; }
};

struct PortNumber {
  static Result<Port> read(const Node& node);
  static std::string print(Port value) { return std::to_string(value.number); }
  static std::string describe() { return "port"; }
};

template <std::unsigned_integral T, std::uint32_t min, std::uint32_t max>
struct Count {
  static Result<T> read(const Node& node) {
    const auto value = read_integer(node, min, max);
    if (!value) return value.error();
    return static_cast<T>(*value);
  }
  static std::string print(T value) { return std::to_string(value); }
  static std::string describe() { return "integer, " + std::to_string(min) + " to " + std::to_string(max); }
};

enum class Zero : std::uint8_t { refused, allowed };

template <class D, Zero zero>
struct Duration {
  static Result<D> read(const Node& node) {
    const auto value = read_duration(node, zero == Zero::allowed, D{1});
    if (!value) return value.error();
    return std::chrono::duration_cast<D>(*value);
  }
  static std::string print(D value) { return print_duration(value); }
  static std::string describe() { return zero == Zero::allowed ? "duration or 0" : "duration"; }
};

struct TrustDomainName {
  static Result<TrustDomain> read(const Node& node);
  static std::string print(const TrustDomain& value) { return config_value::quoted(value.text()); }
  static std::string describe() { return "trust domain"; }
};

struct CidrList {
  static Result<std::vector<Cidr>> read(const Node& node);
  static std::string print(const std::vector<Cidr>& value);
  static std::string describe() { return "list of CIDR blocks"; }
};

struct AddressList {
  static Result<std::vector<IpAddress>> read(const Node& node);
  static std::string print(const std::vector<IpAddress>& value);
  static std::string describe() { return "list of IP addresses"; }
};

// Serial numbers of certificates, and SPIFFE IDs: sorted, each once.
struct SerialList {
  static Result<std::vector<std::string>> read(const Node& node);
  static std::string print(const std::vector<std::string>& value);
  static std::string describe() { return "list of serial numbers"; }
};
struct SpiffeIdList {
  static Result<std::vector<std::string>> read(const Node& node);
  static std::string print(const std::vector<std::string>& value);
  static std::string describe() { return "list of SPIFFE IDs"; }
};

// Where to connect to: "name:15010", "10.0.0.1:15010" or "[fd00::1]:15010".
struct HostPortList {
  static Result<std::vector<std::string>> read(const Node& node);
  static std::string print(const std::vector<std::string>& value);
  static std::string describe() { return "list of host:port"; }
};

// The index of the name that the node holds, or an error that lists them.
Result<std::size_t> read_choice(const Node& node, const std::vector<std::string_view>& names);

// One of the enumerators in `names`, an array of (name, value).
template <const auto& names>
struct Choice {
  using Value = typename std::remove_cvref_t<decltype(names)>::value_type::second_type;
  static std::vector<std::string_view> all() {
    std::vector<std::string_view> out;
    for (const auto& [name, value] : names) out.push_back(name);
    return out;
  }
  static Result<Value> read(const Node& node) {
    const auto index = read_choice(node, all());
    if (!index) return index.error();
    return names[*index].second;
  }
  static std::string print(Value value) {
    for (const auto& [name, candidate] : names) {
      if (candidate == value) return std::string(name);
    }
    return "\"\"";
  }
  static std::string describe() {
    std::string out;
    for (const std::string_view name : all()) out.append(out.empty() ? "" : ", ").append(name);
    return out;
  }
};

inline constexpr std::array log_levels{
    std::pair{std::string_view("debug"), LogLevel::debug}, std::pair{std::string_view("info"), LogLevel::info},
    std::pair{std::string_view("warning"), LogLevel::warning}, std::pair{std::string_view("error"), LogLevel::error}};

}  // namespace postern::config_value
