// Labels and label selectors (Kubernetes apimachinery, LabelSelector).
#pragma once

#include <compare>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

using Labels = std::map<std::string, std::string, std::less<>>;

enum class SelectorOperator : std::uint8_t { in, not_in, exists, does_not_exist };
std::string_view name_of(SelectorOperator op);  // In, NotIn, Exists, DoesNotExist

// One entry of matchExpressions. `values` is empty for exists and does_not_exist.
struct SelectorRequirement {
  std::string key;
  SelectorOperator op = SelectorOperator::exists;
  std::vector<std::string> values;

  auto operator<=>(const SelectorRequirement&) const = default;
};

// An empty selector matches every object. That no selector was given is said by std::optional around it.
struct LabelSelector {
  Labels match_labels;
  std::vector<SelectorRequirement> match_expressions;

  bool empty() const { return match_labels.empty() && match_expressions.empty(); }
  auto operator<=>(const LabelSelector&) const = default;
};

// NotIn and DoesNotExist also match an object without the key (apimachinery, labels.Requirement.Matches).
bool matches(const SelectorRequirement& requirement, const Labels& labels);
// All of matchLabels and matchExpressions must hold.
bool matches(const LabelSelector& selector, const Labels& labels);

// The same selector in one form only: matchLabels written as In expressions, sorted, without repetitions. Selectors
// that differ only in how they are written become equal.
LabelSelector canonical(const LabelSelector& selector);

// As a person would type it to kubectl: app=web,tier in (a,b),!canary; "{}" for the empty selector.
std::string text_of(const LabelSelector& selector);

}  // namespace postern
