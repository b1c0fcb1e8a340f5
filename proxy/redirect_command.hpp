// What was asked of `postern-proxy redirect`.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "proxy/redirect_rules.hpp"

namespace postern {

struct RedirectCommand {
  enum class Action : std::uint8_t { help, install, remove, check };
  enum class Ipv6 : std::uint8_t { automatic, off, require };

  Action action = Action::help;
  RedirectRules rules;
  Ipv6 ipv6 = Ipv6::automatic;
  std::string iptables;  // path of the iptables program; empty: the one that works
  bool dry_run = false;
};

// Reads the arguments after "redirect". A bad one is refused with the flag, its value and what is expected.
Result<RedirectCommand> parse_redirect_command(std::span<const std::string_view> arguments);

std::string_view redirect_help();

}  // namespace postern
