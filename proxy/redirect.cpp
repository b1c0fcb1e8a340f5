#include "proxy/redirect.hpp"

#include <cstdio>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "proxy/redirect_command.hpp"
#include "proxy/redirect_iptables.hpp"
#include "proxy/redirect_rules.hpp"

namespace postern {
namespace {

using Action = RedirectCommand::Action;
using Ipv6 = RedirectCommand::Ipv6;

constexpr std::string_view kRemedy =
    "; expected root with NET_ADMIN, the package iptables, and a kernel with nf_tables or iptable_nat (for IPv6: ip6table_nat). "
    "--iptables PATH names another program";

std::string_view name_of(IpFamily family) { return family == IpFamily::v4 ? "IPv4" : "IPv6"; }

void print(const std::string& line) { std::fprintf(stdout, "redirect: %s\n", line.c_str()); }

int fail(const Error& error, int status = 1) {
  std::fprintf(stderr, "postern-proxy redirect: %s\n", error.text().c_str());
  return status;
}

// Our part of the nat table; nothing where this implementation has no table and should not be made to make one.
Result<NatState> state_of(const Iptables& iptables, IpFamily family) {
  if (!iptables.may_hold_rules(family)) return NatState{};
  const auto saved = iptables.save(family);
  if (!saved) return saved.error();
  return read_saved_rules(*saved);
}

// The implementation to use, and the others that there are.
struct Choice {
  Iptables use;
  std::vector<Iptables> others;
};

// The one that has rules of ours, else the one in which the nat table is in use, else the first that works: two implementations at
// once would each see the other's packets.
Result<Choice> choose(const std::string& path) {
  std::vector<Iptables> all = Iptables::installed();
  if (!path.empty()) {
    auto named = Iptables::at(path);
    if (!named) return named.error();
    std::erase_if(all, [&](const Iptables& other) { return other.name() == named->name(); });
    return Choice{std::move(*named), std::move(all)};
  }
  std::string problems;
  std::optional<std::size_t> best;
  int best_rank = 0;
  for (std::size_t i = 0; i < all.size(); ++i) {
    const bool in_use = all[i].may_hold_rules(IpFamily::v4);
    if (!in_use && best) continue;
    const auto saved = all[i].save(IpFamily::v4);
    if (!saved) {
      problems += (problems.empty() ? "" : "; ") + saved.error().text();
      continue;
    }
    const int rank = !read_saved_rules(*saved).empty() ? 3 : holds_rules(*saved) ? 2 : 1;
    if (rank > best_rank) {
      best = i;
      best_rank = rank;
    }
  }
  if (!best) {
    if (all.empty()) problems = "no iptables-nft, iptables-legacy or iptables was found";
    return Error{"the nat table cannot be programmed: " + problems + std::string(kRemedy), {}};
  }
  Choice choice{all[*best], {}};
  all.erase(all.begin() + static_cast<std::ptrdiff_t>(*best));
  choice.others = std::move(all);
  return choice;
}

// The families to program. IPv6 without a nat table is only left out where no IPv6 connection can come or go.
Result<std::vector<IpFamily>> families(const RedirectCommand& command, const Iptables& iptables) {
  std::vector<IpFamily> both = {IpFamily::v4, IpFamily::v6};
  const std::vector<IpFamily> only_v4 = {IpFamily::v4};
  if (command.ipv6 == Ipv6::require) return both;
  if (command.ipv6 == Ipv6::off) {
    print("IPv6 left alone (--ipv6 off)");
    return only_v4;
  }
  const Ipv6Use use = ipv6_use();
  if (!use.any) {
    print("IPv6 skipped: this pod has no IPv6 address");
    return only_v4;
  }
  const auto saved = iptables.save(IpFamily::v6);
  if (saved) return both;
  if (use.routable) {
    return Error{
        "this pod has IPv6 addresses, but the nat table of IPv6 cannot be programmed: " + saved.error().text() +
            ". Its IPv6 traffic would go past the sidecar. Expected a kernel with ip6table_nat or nf_tables; or disable IPv6 in the "
            "pod (sysctl net.ipv6.conf.all.disable_ipv6=1), or accept it with --ipv6 off",
        {}};
  }
  print("IPv6 skipped: this pod has only link-local IPv6 addresses, and no nat table for them");
  return only_v4;
}

Result<void> change(const Iptables& iptables, IpFamily family, const NatState& from, const NatState& to) {
  return iptables.restore(family, transaction(from, to));
}

// Takes our rules out of implementations that are not used (any longer): they would redirect a second time.
Result<void> clear(const std::vector<Iptables>& programs, bool& removed) {
  for (const Iptables& iptables : programs) {
    for (const IpFamily family : {IpFamily::v4, IpFamily::v6}) {
      const auto state = state_of(iptables, family);
      if (!state || state->empty()) continue;  // what does not work here holds nothing either
      if (const auto done = change(iptables, family, *state, {}); !done) return done.error();
      removed = true;
      print(std::string(name_of(family)) + " rules removed (" + iptables.name() + ")");
    }
  }
  return {};
}

// Puts one family's rules in place and looks whether they are. Yields what was there before.
Result<NatState> install_family(const Iptables& iptables, IpFamily family, const RedirectRules& rules) {
  const NatState expected = render_rules(rules, family);
  auto saved = iptables.save(family);
  if (!saved) return saved.error();
  NatState before = read_saved_rules(*saved);
  if (differences(expected, before).empty()) {
    print(std::string(name_of(family)) + " rules were in place already (" + iptables.name() + ")");
    return before;
  }
  if (const auto done = change(iptables, family, before, expected); !done) return done.error();
  saved = iptables.save(family);
  if (!saved) return saved.error();
  if (const auto wrong = differences(expected, read_saved_rules(*saved)); !wrong.empty()) {
    return Error{"the rules were accepted, but are not there: " + wrong.front() + ". Does something else change them at the same time?",
                 {}};
  }
  print(std::string(name_of(family)) + " rules in place (" + iptables.name() + "): arriving connections to port " +
        std::to_string(rules.inbound.number) + ", the pod's own to port " + std::to_string(rules.outbound.number));
  return before;
}

int install(const RedirectCommand& command) {
  const auto choice = choose(command.iptables);
  if (!choice) return fail(choice.error());
  const auto wanted = families(command, choice->use);
  if (!wanted) return fail(wanted.error());
  std::vector<std::pair<IpFamily, NatState>> done;
  for (const IpFamily family : *wanted) {
    auto before = install_family(choice->use, family, command.rules);
    if (before) {
      done.emplace_back(family, std::move(*before));
      continue;
    }
    std::string message = std::string(name_of(family)) + " rules could not be put in place: " + before.error().text();
    for (const auto& [earlier, state] : done) {
      const auto undone = change(choice->use, earlier, render_rules(command.rules, earlier), state);
      message +=
          ". " + std::string(name_of(earlier)) + (undone ? " was put back as it was" : " could not be put back: " + undone.error().text());
    }
    return fail(Error{message + std::string(kRemedy), {}});
  }
  bool removed = false;
  if (const auto cleared = clear(choice->others, removed); !cleared) return fail(cleared.error());
  return 0;
}

int remove(const RedirectCommand& command) {
  std::vector<Iptables> programs = Iptables::installed();
  if (!command.iptables.empty()) {
    auto named = Iptables::at(command.iptables);
    if (!named) return fail(named.error(), 2);
    programs = {std::move(*named)};
  }
  bool readable = false;
  std::string problems;
  for (const Iptables& iptables : programs) {
    const auto state = state_of(iptables, IpFamily::v4);
    if (state) {
      readable = true;
    } else {
      problems += (problems.empty() ? "" : "; ") + state.error().text();
    }
  }
  if (!readable) return fail(Error{"the nat table cannot be read: " + problems + std::string(kRemedy), {}});
  bool removed = false;
  if (const auto cleared = clear(programs, removed); !cleared) return fail(cleared.error());
  if (!removed) print("there are no rules of ours");
  return 0;
}

int check(const RedirectCommand& command) {
  const auto choice = choose(command.iptables);
  if (!choice) return fail(choice.error());
  const auto wanted = families(command, choice->use);
  if (!wanted) return fail(wanted.error());
  bool same = true;
  for (const IpFamily family : *wanted) {
    const auto state = state_of(choice->use, family);
    if (!state) return fail(state.error());
    const auto found = differences(render_rules(command.rules, family), *state);
    for (const std::string& difference : found) print(std::string(name_of(family)) + " (" + choice->use.name() + "): " + difference);
    if (found.empty()) print(std::string(name_of(family)) + " (" + choice->use.name() + "): as expected");
    same = same && found.empty();
  }
  for (const Iptables& other : choice->others) {
    for (const IpFamily family : {IpFamily::v4, IpFamily::v6}) {
      const auto state = state_of(other, family);
      if (!state || state->empty()) continue;
      print(std::string(name_of(family)) + " (" + other.name() +
            "): rules of ours are not expected here as well; 'redirect install' removes them");
      same = false;
    }
  }
  if (!same) print("run 'postern-proxy redirect install' with the same options to mend this");
  return same ? 0 : 1;
}

int dry_run(const RedirectCommand& command) {
  for (const IpFamily family : {IpFamily::v4, IpFamily::v6}) {
    if (family == IpFamily::v6 && command.ipv6 == Ipv6::off) continue;
    const NatState rules = render_rules(command.rules, family);
    const bool removing = command.action == Action::remove;
    std::fprintf(stdout, "# %s-restore --noflush\n%s", family == IpFamily::v4 ? "iptables" : "ip6tables",
                 transaction(removing ? rules : NatState{}, removing ? NatState{} : rules).c_str());
  }
  return 0;
}

}  // namespace

int redirect_main(int argc, char** argv) {
  std::vector<std::string_view> arguments(argv + 1, argv + argc);
  const auto command = parse_redirect_command(arguments);
  if (!command) return fail(command.error(), 2);
  if (command->action == Action::help) {
    std::fputs(std::string(redirect_help()).c_str(), stdout);
    return 0;
  }
  if (command->dry_run) return dry_run(*command);
  switch (command->action) {
    case Action::install: return install(*command);
    case Action::remove: return remove(*command);
    case Action::check: return check(*command);
    case Action::help: break;
  }
  return 2;
}

}  // namespace postern
