#include "proxy/redirect_rules.hpp"

#include <algorithm>
#include <array>

namespace postern {
namespace {

constexpr std::string_view kInbound = "POSTERN_INBOUND";
constexpr std::string_view kOutbound = "POSTERN_OUTBOUND";
constexpr std::array kOurs = {kInbound, kOutbound};

bool is_ours(std::string_view chain) { return std::find(kOurs.begin(), kOurs.end(), chain) != kOurs.end(); }

std::string_view next_word(std::string_view& text) {
  const auto start = text.find_first_not_of(' ');
  if (start == std::string_view::npos) {
    text = {};
    return {};
  }
  const auto end = std::min(text.find(' ', start), text.size());
  const std::string_view word = text.substr(start, end - start);
  text.remove_prefix(std::min(end + 1, text.size()));
  return word;
}

// Where the rule goes with -j or -g, or nothing.
std::string_view target_of(std::string_view rule) {
  while (!rule.empty()) {
    const std::string_view word = next_word(rule);
    if (word == "-j" || word == "-g") return next_word(rule);
  }
  return {};
}

const NatState::Chain* find(const NatState& state, std::string_view name) {
  const auto at = std::find_if(state.chains.begin(), state.chains.end(), [&](const NatState::Chain& c) { return c.name == name; });
  return at == state.chains.end() ? nullptr : &*at;
}

NatState::Chain& chain_named(NatState& state, std::string_view name) {
  const auto at = std::find_if(state.chains.begin(), state.chains.end(), [&](const NatState::Chain& c) { return c.name == name; });
  return at != state.chains.end() ? *at : state.chains.emplace_back(NatState::Chain{std::string(name), {}});
}

// The elements of `a` without those of `b`, each as often as it is there.
std::vector<std::string> without(const std::vector<std::string>& a, std::vector<std::string> b) {
  std::vector<std::string> left;
  for (const std::string& element : a) {
    const auto at = std::find(b.begin(), b.end(), element);
    if (at == b.end()) {
      left.push_back(element);
    } else {
      b.erase(at);
    }
  }
  return left;
}

template <class Line>
void for_each_line(std::string_view text, Line line) {
  while (!text.empty()) {
    const auto end = std::min(text.find('\n'), text.size());
    line(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

std::string port_rule(Port port) { return "-p tcp -m tcp --dport " + std::to_string(port.number) + " -j RETURN"; }

void compare_chain(std::string_view name, const NatState& expected, const NatState& found, std::vector<std::string>& out) {
  const NatState::Chain* should = find(expected, name);
  const NatState::Chain* is = find(found, name);
  if (should == nullptr && is == nullptr) return;
  if (is == nullptr) {
    out.push_back("chain " + std::string(name) + " is missing");
    return;
  }
  if (should == nullptr) {
    out.push_back("chain " + std::string(name) + " is not expected");
    return;
  }
  const auto missing = without(should->rules, is->rules);
  const auto extra = without(is->rules, should->rules);
  for (const auto& rule : missing) out.push_back("missing in " + std::string(name) + ": " + rule);
  for (const auto& rule : extra) out.push_back("not expected in " + std::string(name) + ": " + rule);
  if (missing.empty() && extra.empty() && should->rules != is->rules) out.push_back(std::string(name) + " has its rules in another order");
}

}  // namespace

NatState render_rules(const RedirectRules& rules, IpFamily family) {
  NatState::Chain inbound{std::string(kInbound), {"-i lo -j RETURN"}};
  if (rules.health) inbound.rules.push_back(port_rule(*rules.health));
  for (const Port port : rules.exclude_inbound_ports) {
    if (port != rules.health) inbound.rules.push_back(port_rule(port));
  }
  // To the sidecar's own ports as well: it refuses what was addressed to them, and nobody reaches it around this rule.
  inbound.rules.push_back("-p tcp -j REDIRECT --to-ports " + std::to_string(rules.inbound.number));

  NatState::Chain outbound{std::string(kOutbound), {"-o lo -j RETURN"}};
  outbound.rules.push_back("-m owner --uid-owner " + std::to_string(rules.uid) + " -j RETURN");
  if (rules.gid) outbound.rules.push_back("-m owner --gid-owner " + std::to_string(*rules.gid) + " -j RETURN");
  for (const std::uint32_t uid : rules.exclude_uids) {
    if (uid != rules.uid) outbound.rules.push_back("-m owner --uid-owner " + std::to_string(uid) + " -j RETURN");
  }
  for (const Cidr& cidr : rules.exclude_cidrs) {
    if (cidr.address().family() == family) outbound.rules.push_back("-d " + cidr.text() + " -j RETURN");
  }
  for (const Port port : rules.exclude_outbound_ports) outbound.rules.push_back(port_rule(port));
  outbound.rules.push_back("-p tcp -j REDIRECT --to-ports " + std::to_string(rules.outbound.number));

  NatState state;
  state.chains = {std::move(inbound), std::move(outbound)};
  state.jumps = {"PREROUTING -p tcp -j " + std::string(kInbound), "OUTPUT -p tcp -j " + std::string(kOutbound)};
  return state;
}

NatState read_saved_rules(std::string_view saved) {
  NatState state;
  std::vector<std::string> before;  // of the chain being read; it counts once a jump follows
  std::string current;
  for_each_line(saved, [&](std::string_view line) {
    if (line.starts_with(':')) {
      line.remove_prefix(1);
      const std::string_view name = next_word(line);
      if (is_ours(name)) chain_named(state, name);
    } else if (line.starts_with("-A ")) {
      line.remove_prefix(3);
      std::string_view rule = line;
      const std::string_view name = next_word(rule);
      if (is_ours(name)) {
        chain_named(state, name).rules.emplace_back(rule);
        return;
      }
      if (name != current) {
        current = name;
        before.clear();
      }
      if (is_ours(target_of(rule))) {
        state.jumps.emplace_back(line);
        state.earlier.insert(state.earlier.end(), before.begin(), before.end());
        before.clear();
      } else if (name == "PREROUTING" || name == "OUTPUT") {
        before.emplace_back(line);
      }
    }
  });
  std::sort(state.chains.begin(), state.chains.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return state;
}

bool holds_rules(std::string_view saved) { return saved.starts_with("-A ") || saved.find("\n-A ") != std::string_view::npos; }

std::string transaction(const NatState& from, const NatState& to) {
  std::string out = "*nat\n";
  // Naming a chain of one's own makes it, or empties it (iptables-restore(8), --noflush).
  for (const std::string_view name : kOurs) {
    if (find(from, name) != nullptr || find(to, name) != nullptr) out += ":" + std::string(name) + " - [0:0]\n";
  }
  for (const NatState::Chain& chain : to.chains) {
    for (const std::string& rule : chain.rules) out += "-A " + chain.name + " " + rule + "\n";
  }
  for (const std::string& jump : from.jumps) out += "-D " + jump + "\n";
  for (const std::string& jump : to.jumps) {
    const auto space = jump.find(' ');
    out += "-I " + jump.substr(0, space) + " 1" + jump.substr(space) + "\n";
  }
  for (const NatState::Chain& chain : from.chains) {
    if (find(to, chain.name) == nullptr) out += "-X " + chain.name + "\n";
  }
  return out + "COMMIT\n";
}

std::vector<std::string> differences(const NatState& expected, const NatState& found) {
  std::vector<std::string> out;
  for (const std::string_view name : kOurs) compare_chain(name, expected, found, out);
  for (const std::string& jump : without(expected.jumps, found.jumps)) out.push_back("missing: " + jump);
  for (const std::string& jump : without(found.jumps, expected.jumps)) out.push_back("not expected: " + jump);
  for (const std::string& rule : found.earlier) out.push_back("comes before ours, which must be first: " + rule);
  return out;
}

}  // namespace postern
