#include "base/config_values.hpp"

#include <algorithm>
#include <charconv>

#include "base/certificate_serial.hpp"
#include "base/nearest_name.hpp"

namespace postern::config_value {
namespace {

using std::chrono::milliseconds;

struct Unit {
  std::string_view name;
  std::int64_t ms;
};
constexpr std::array units{Unit{"h", 3'600'000}, Unit{"m", 60'000}, Unit{"s", 1'000}, Unit{"ms", 1}};
constexpr std::int64_t longest_ms = 366LL * 24 * 3'600'000;

bool is_lower_alnum(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }
bool is_alnum(char c) { return is_lower_alnum(c) || (c >= 'A' && c <= 'Z'); }

// Milliseconds of "1h30m": numbers with units, the larger unit first. Nothing for anything else.
std::optional<std::int64_t> parse_duration(std::string_view text) {
  std::int64_t total = 0;
  auto unit = units.begin();
  if (text.empty()) return std::nullopt;
  while (!text.empty()) {
    std::int64_t number = 0;
    const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (ec != std::errc{} || number < 0 || text.front() == '-' || number > longest_ms) return std::nullopt;
    text.remove_prefix(static_cast<std::size_t>(end - text.data()));
    const std::string_view name = text.substr(0, text.find_first_of("0123456789"));
    unit = std::find_if(unit, units.end(), [&](const Unit& u) { return u.name == name; });
    if (unit == units.end() || number > longest_ms / unit->ms) return std::nullopt;
    total += number * unit->ms;
    if (total > longest_ms) return std::nullopt;
    text.remove_prefix(name.size());
    ++unit;
  }
  return total;
}

Result<std::string> read_string(const Node& node, std::string_view expected) {
  if (!node.is(Node::Kind::string)) return ill_typed(node, expected);
  if (node.scalar.find('\0') != std::string::npos) return ill_typed(node, std::string(expected) + " without a NUL character");
  return node.scalar;
}

template <class T, class Parse>
Result<std::vector<T>> read_list(const Node& node, std::string_view expected, Parse parse) {
  if (!node.is(Node::Kind::sequence)) return ill_typed(node, expected);
  std::vector<T> out;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    const std::string item = "item " + std::to_string(i + 1) + ": ";
    if (!node.items[i].is(Node::Kind::string)) return Error{item + ill_typed(node.items[i], expected).message, {}};
    auto value = parse(node.items[i].scalar);
    if (!value) return Error{item + value.error().text(), {}};
    out.push_back(*std::move(value));
  }
  return out;
}

template <class T>
std::string print_list(const std::vector<T>& value) {
  std::string out = "[";
  for (const T& item : value) out.append(out.size() == 1 ? "" : ", ").append(config_value::quoted(item.text()));
  return out + "]";
}

std::string print_texts(const std::vector<std::string>& value) {
  std::string out = "[";
  for (const std::string& item : value) out.append(out.size() == 1 ? "" : ", ").append(config_value::quoted(item));
  return out + "]";
}

Result<std::vector<std::string>> ascending(Result<std::vector<std::string>> read) {
  if (!read) return read;
  std::sort(read->begin(), read->end());
  read->erase(std::unique(read->begin(), read->end()), read->end());
  return read;
}

}  // namespace

Error ill_typed(const Node& node, std::string_view expected) {
  std::string message = "expected ";
  message.append(expected).append("; found ").append(name_of(node.kind));
  const bool has_text = !node.is(Node::Kind::null) && !node.is(Node::Kind::sequence) && !node.is(Node::Kind::mapping);
  if (has_text) message.append(" ").append(config_value::quoted(std::string_view(node.scalar).substr(0, 64)));
  return {std::move(message), {}};
}

Result<std::int64_t> read_integer(const Node& node, std::int64_t min, std::int64_t max) {
  if (!node.is(Node::Kind::integer) || node.integer < min || node.integer > max) {
    return ill_typed(node, "an integer from " + std::to_string(min) + " to " + std::to_string(max));
  }
  return node.integer;
}

Result<milliseconds> read_duration(const Node& node, bool zero_allowed, milliseconds unit) {
  std::string expected = "a duration such as 500ms, 10s, 5m or 1h";
  if (unit > milliseconds{1}) expected = "a duration of whole seconds such as 10s, 5m or 1h";
  if (zero_allowed) expected += ", or 0";
  if (node.is(Node::Kind::integer) && node.integer == 0 && zero_allowed) return milliseconds{0};
  if (!node.is(Node::Kind::string)) {
    Error error = ill_typed(node, expected);
    if (node.is(Node::Kind::integer)) error.message += " without a unit";
    return error;
  }
  const auto value = parse_duration(node.scalar);
  if (!value || *value % unit.count() != 0) return ill_typed(node, expected);
  if (*value == 0 && !zero_allowed) return ill_typed(node, expected + ", more than 0");
  return milliseconds{*value};
}

std::string print_duration(milliseconds value) {
  if (value.count() == 0) return "0s";
  const auto unit = std::find_if(units.begin(), units.end(), [&](const Unit& u) { return value.count() % u.ms == 0; });
  return std::to_string(value.count() / unit->ms).append(unit->name);
}

std::string quoted(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

Result<std::string> Text::read(const Node& node) { return read_string(node, "a string (put it in quotes)"); }

Result<std::string> ObjectName::read(const Node& node) {
  constexpr std::string_view expected =
      "a Kubernetes name such as web-0: at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends";
  auto text = read_string(node, expected);
  if (!text || text->empty()) return text;
  const bool fits = text->size() <= 253 && is_lower_alnum(text->front()) && is_lower_alnum(text->back()) &&
                    std::all_of(text->begin(), text->end(), [](char c) { return is_lower_alnum(c) || c == '-' || c == '.'; });
  if (!fits) return ill_typed(node, expected);
  return text;
}

Result<std::string> SocketPath::read(const Node& node) {
  constexpr std::string_view expected = "the path of a unix socket such as /run/postern/admin.sock, at most 107 bytes";
  auto text = read_string(node, expected);
  if (text && text->size() > 107) return ill_typed(node, expected);
  return text;
}

Result<std::string> Groups::read(const Node& node) {
  constexpr std::string_view expected = "key exchange groups joined by colons such as X25519:P-256";
  auto text = read_string(node, expected);
  if (!text) return text;
  const bool letters = std::all_of(text->begin(), text->end(), [](char c) { return is_alnum(c) || c == '-' || c == '_' || c == ':'; });
  const std::string framed = ":" + *text + ":";
  if (!letters || framed.find("::") != std::string::npos) return ill_typed(node, expected);
  return text;
}

Result<bool> Boolean::read(const Node& node) {
  if (!node.is(Node::Kind::boolean)) return ill_typed(node, "true or false");
  return node.boolean;
}

Result<Port> PortNumber::read(const Node& node) {
  if (!node.is(Node::Kind::integer) || node.integer < 0 || node.integer > 65535) {
    return ill_typed(node, "a port number from 0 to 65535, such as 15006");
  }
  return Port{static_cast<std::uint16_t>(node.integer)};
}

Result<TrustDomain> TrustDomainName::read(const Node& node) {
  auto text = read_string(node, "a trust domain such as cluster.local");
  if (!text) return text.error();
  if (text->empty()) return TrustDomain{};
  return TrustDomain::parse(*text);
}

Result<std::vector<Cidr>> CidrList::read(const Node& node) {
  return read_list<Cidr>(node, "a list of CIDR blocks such as [\"10.0.0.0/8\", \"fd00::/8\"]", Cidr::parse);
}
std::string CidrList::print(const std::vector<Cidr>& value) { return print_list(value); }

Result<std::vector<IpAddress>> AddressList::read(const Node& node) {
  return read_list<IpAddress>(node, "a list of IP addresses such as [\"10.0.0.1\", \"fd00::1\"]", IpAddress::parse);
}
std::string AddressList::print(const std::vector<IpAddress>& value) { return print_list(value); }

Result<std::vector<std::string>> SerialList::read(const Node& node) {
  constexpr std::string_view expected = "a list of serial numbers in quotes, such as [\"4B2F\"]";
  return ascending(read_list<std::string>(node, expected, [](const std::string& text) { return canonical_serial(text); }));
}
std::string SerialList::print(const std::vector<std::string>& value) { return print_texts(value); }

Result<std::vector<std::string>> SpiffeIdList::read(const Node& node) {
  constexpr std::string_view expected = "a list of SPIFFE IDs such as [\"spiffe://cluster.local/ns/shop/sa/default/pod/web-0/7f1c\"]";
  return ascending(read_list<std::string>(node, expected, [](const std::string& text) -> Result<std::string> {
    const auto id = SpiffeId::parse(text);
    if (!id) return id.error();
    return id->text();
  }));
}
std::string SpiffeIdList::print(const std::vector<std::string>& value) { return print_texts(value); }

Result<std::vector<std::string>> HostPortList::read(const Node& node) {
  constexpr std::string_view expected = "a list of addresses such as [\"postern-control.postern-system:15010\", \"[fd00::1]:15010\"]";
  return read_list<std::string>(node, expected, [&](const std::string& text) -> Result<std::string> {
    const auto colon = text.rfind(':');
    const std::string_view host = std::string_view(text).substr(0, colon == std::string::npos ? 0 : colon);
    const std::string_view digits = colon == std::string::npos ? std::string_view() : std::string_view(text).substr(colon + 1);
    std::uint16_t port = 0;
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), port);
    const bool port_fits = failed == std::errc{} && end == digits.data() + digits.size() && port != 0;
    const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
    const bool host_fits = bracketed
                               ? static_cast<bool>(IpAddress::parse(host.substr(1, host.size() - 2)))
                               : !host.empty() && host.size() <= 253 &&
                                     std::all_of(host.begin(), host.end(), [](char c) { return is_alnum(c) || c == '-' || c == '.'; });
    if (!port_fits || !host_fits)
      return Error{"expected host:port such as postern-control.postern-system:15010; found " + config_value::quoted(text.substr(0, 64)),
                   {}};
    return text;
  });
}
std::string HostPortList::print(const std::vector<std::string>& value) { return print_texts(value); }

Result<std::size_t> read_choice(const Node& node, const std::vector<std::string_view>& names) {
  if (node.is(Node::Kind::string)) {
    const auto found = std::find(names.begin(), names.end(), node.scalar);
    if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  }
  std::string expected = "one of";
  for (const std::string_view name : names) expected.append(name == names.front() ? " " : ", ").append(name);
  Error error = ill_typed(node, expected);
  if (const auto nearest = nearest_name(node.scalar, names)) error.message.append("; did you mean ").append(*nearest).append("?");
  return error;
}

}  // namespace postern::config_value
