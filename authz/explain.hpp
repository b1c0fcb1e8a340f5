// explain(): the same question as decide(), answered rule by rule in words. It walks the allow list itself, not the index.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "authz/snapshot.hpp"

namespace postern {

// One (rule, peer) of the allow list, as it was looked at.
struct ExplainedRule {
  const RuleOrigin* origin = nullptr;  // lives as long as the snapshot
  bool audit = false;
  bool replaced = false;
  bool peer_matches = false;
  bool port_matches = false;
  std::string peer;   // what the rule names: "pods app=web in namespaces team=a", "10.0.0.0/8 except 10.1.0.0/16", "anybody"
  std::string ports;  // "TCP 80-90, TCP http (8080)", "every port"

  bool matches() const { return peer_matches && port_matches; }
};

struct Explanation {
  PolicyDirection direction = PolicyDirection::ingress;
  Verdict verdict;
  std::vector<IsolatingPolicy> isolating;
  std::optional<EnforcementMode> default_deny;
  std::vector<ExplainedRule> rules;
};

// REQUIRES: the snapshot outlives the explanation.
Explanation explain(const PolicySnapshot& snapshot, PolicyDirection direction, const Peer& peer, Port port,
                    Protocol protocol = Protocol::tcp);

// Several lines, without a final newline, for people.
std::string text_of(const Explanation& explanation);

}  // namespace postern
