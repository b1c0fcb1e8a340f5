#include "authz/verdict.hpp"

namespace postern {

std::string_view name_of(PolicyDirection direction) {
  switch (direction) {
    case PolicyDirection::ingress: return "ingress";
    case PolicyDirection::egress: return "egress";
  }
  return "";
}

std::string_view name_of(Basis basis) {
  switch (basis) {
    case Basis::rule: return "rule";
    case Basis::not_isolated: return "not_isolated";
    case Basis::node_probe: return "node_probe";
    case Basis::node: return "node";
    case Basis::no_rule: return "no_rule";
    case Basis::no_policy: return "no_policy";
    case Basis::outsider: return "outsider";
  }
  return "";
}

std::string text_of(const RuleOrigin& origin, PolicyDirection direction) {
  std::string text = origin.ns + "/" + origin.policy + " " + std::string(name_of(direction)) + "[" + std::to_string(origin.rule) + "]";
  if (origin.peer == RuleOrigin::annotation) return text + " by " + std::string(allow_spiffe_ids_annotation);
  if (origin.peer < 0) return text;
  text += direction == PolicyDirection::ingress ? ".from[" : ".to[";
  return text + std::to_string(origin.peer) + "]";
}

}  // namespace postern
