#include "proxy/redirect_command.hpp"

#include <algorithm>
#include <charconv>
#include <limits>
#include <optional>

namespace postern {
namespace {

constexpr std::size_t kMaxItems = 1'000;

Error bad(std::string_view flag, std::string_view value, std::string_view expected) {
  return Error{std::string(flag) + " '" + std::string(value) + "': expected " + std::string(expected), {}};
}

std::optional<std::uint64_t> number(std::string_view text, std::uint64_t least, std::uint64_t most) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < least || value > most) return std::nullopt;
  return value;
}

Result<Port> port(std::string_view flag, std::string_view text) {
  const auto value = number(text, 1, 65535);
  if (!value) return bad(flag, text, "a port number from 1 to 65535");
  return Port{static_cast<std::uint16_t>(*value)};
}

// 4294967295 is no id: the kernel's "nobody in particular".
Result<std::uint32_t> id(std::string_view flag, std::string_view text) {
  const auto value = number(text, 0, std::numeric_limits<std::uint32_t>::max() - 1);
  if (!value) return bad(flag, text, "a numeric id");
  return static_cast<std::uint32_t>(*value);
}

Result<Cidr> destination(std::string_view flag, std::string_view text) {
  const auto cidr = Cidr::parse(text.find('/') != std::string_view::npos
                                    ? std::string(text)
                                    : std::string(text) + (text.find(':') != std::string_view::npos ? "/128" : "/32"));
  if (!cidr) return bad(flag, text, "a CIDR block or an address, such as 10.0.0.0/8 or fd00::1");
  if (cidr->prefix() == 0) return bad(flag, text, "less than everything; to redirect nothing, use 'redirect remove'");
  return *cidr;
}

// A list of values between commas, added to `out`, which stays sorted and without duplicates.
template <class T, class Parse>
Result<void> list(std::string_view flag, std::string_view text, std::vector<T>& out, Parse parse) {
  while (!text.empty()) {
    const auto end = std::min(text.find(','), text.size());
    const auto item = parse(flag, text.substr(0, end));
    if (!item) return item.error();
    out.push_back(*item);
    if (out.size() > kMaxItems) return Error{std::string(flag) + ": more than " + std::to_string(kMaxItems) + " values", {}};
    if (end + 1 == text.size()) return bad(flag, text, "another value after the last comma");
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  std::sort(out.begin(), out.end());
  out.erase(std::unique(out.begin(), out.end()), out.end());
  return {};
}

template <class T, class Out>
Result<void> store(Result<T> value, Out& out) {
  if (!value) return value.error();
  out = *value;
  return {};
}

Result<void> set_ipv6(std::string_view flag, std::string_view value, RedirectCommand::Ipv6& out) {
  if (value == "auto") {
    out = RedirectCommand::Ipv6::automatic;
  } else if (value == "off") {
    out = RedirectCommand::Ipv6::off;
  } else if (value == "require") {
    out = RedirectCommand::Ipv6::require;
  } else {
    return bad(flag, value, "auto, off or require");
  }
  return {};
}

Result<void> set_option(RedirectCommand& command, std::string_view flag, std::string_view value) {
  RedirectRules& rules = command.rules;
  if (flag == "--uid") return store(id(flag, value), rules.uid);
  if (flag == "--gid") return store(id(flag, value), rules.gid);
  if (flag == "--inbound-port") return store(port(flag, value), rules.inbound);
  if (flag == "--outbound-port") return store(port(flag, value), rules.outbound);
  if (flag == "--health-port") {
    if (value == "0") {
      rules.health.reset();
      return {};
    }
    return store(port(flag, value), rules.health);
  }
  if (flag == "--exclude-inbound-ports") return list(flag, value, rules.exclude_inbound_ports, port);
  if (flag == "--exclude-outbound-ports") return list(flag, value, rules.exclude_outbound_ports, port);
  if (flag == "--exclude-cidrs") return list(flag, value, rules.exclude_cidrs, destination);
  if (flag == "--exclude-uids") return list(flag, value, rules.exclude_uids, id);
  if (flag == "--ipv6") return set_ipv6(flag, value, command.ipv6);
  if (flag == "--iptables") {
    command.iptables = value;
    return {};
  }
  return Error{"unknown option " + std::string(flag) + " (see postern-proxy redirect --help)", {}};
}

Result<void> validate(const RedirectRules& rules) {
  if (rules.uid == 0) {
    return Error{
        "--uid '0': expected the sidecar's own uid; connections of every process of root would go past the sidecar. Run the "
        "sidecar as a user of its own, such as 1337",
        {}};
  }
  if (rules.inbound == rules.outbound) {
    return Error{"--inbound-port and --outbound-port are both " + std::to_string(rules.inbound.number) + ": expected two ports", {}};
  }
  if (rules.health && (*rules.health == rules.inbound || *rules.health == rules.outbound)) {
    return Error{
        "--health-port '" + std::to_string(rules.health->number) + "': expected another port than --inbound-port and --outbound-port", {}};
  }
  return {};
}

}  // namespace

Result<RedirectCommand> parse_redirect_command(std::span<const std::string_view> arguments) {
  RedirectCommand command;
  if (arguments.empty() || arguments[0] == "--help" || arguments[0] == "-h") return command;
  if (arguments[0] == "install") {
    command.action = RedirectCommand::Action::install;
  } else if (arguments[0] == "remove") {
    command.action = RedirectCommand::Action::remove;
  } else if (arguments[0] == "check") {
    command.action = RedirectCommand::Action::check;
  } else {
    return Error{"unknown action '" + std::string(arguments[0]) + "': expected install, remove or check", {}};
  }
  for (std::size_t i = 1; i < arguments.size(); ++i) {
    std::string_view flag = arguments[i];
    if (flag == "--help" || flag == "-h") return RedirectCommand{};
    if (flag == "--dry-run") {
      command.dry_run = true;
      continue;
    }
    if (!flag.starts_with("--")) return Error{"unexpected argument '" + std::string(flag) + "': expected options that begin with --", {}};
    std::string_view value;
    if (const auto equals = flag.find('='); equals != std::string_view::npos) {
      value = flag.substr(equals + 1);
      flag = flag.substr(0, equals);
    } else if (i + 1 < arguments.size()) {
      value = arguments[++i];
    } else {
      return Error{std::string(flag) + " needs a value (see postern-proxy redirect --help)", {}};
    }
    if (const auto set = set_option(command, flag, value); !set) return set.error();
  }
  if (const auto valid = validate(command.rules); !valid) return valid.error();
  return command;
}

std::string_view redirect_help() {
  return R"(usage: postern-proxy redirect install|remove|check [options]

Brings the TCP connections of this network namespace to the sidecar, with rules of its own in the nat tables of IPv4 and IPv6
(chains POSTERN_INBOUND, POSTERN_OUTBOUND). Needs NET_ADMIN. Loopback and the sidecar's own connections are left alone.

  install   puts the rules in place; doing it again, or after an interruption, gives the same result. All or nothing.
  remove    takes every rule of ours away, by whichever iptables it was made
  check     says what is missing or not expected, given the same options as install; exit status 0: nothing is

  --uid N                       the uid that the sidecar runs as (1337)
  --gid N                       a gid whose connections are left alone as well (none)
  --inbound-port PORT           where the sidecar takes arriving connections (15006)
  --outbound-port PORT          where it takes the applications' connections (15001)
  --health-port PORT            reached past the sidecar's redirection (15020); 0: none
  --exclude-inbound-ports LIST  ports on which arriving connections are left alone: 22,9100
  --exclude-outbound-ports LIST destination ports that are left alone
  --exclude-cidrs LIST          destinations that are left alone: 169.254.169.254,fd00:1::/64
  --exclude-uids LIST           uids whose connections are left alone
  --ipv6 auto|off|require       auto (default): unless the pod has no IPv6; off: the pod's IPv6 goes past the sidecar
  --iptables PATH               the iptables program; its -save and -restore and the ip6tables are those beside it
                                (default: iptables-nft or iptables-legacy, the one that works, or that has rules already)
  --dry-run                     prints the rules and changes nothing
  --help                        this text

Exit status: 0 done, 1 failed (or check found differences), 2 bad arguments.
)";
}

}  // namespace postern
