#include "authz/labels.hpp"

#include <algorithm>

namespace postern {

std::string_view name_of(SelectorOperator op) {
  switch (op) {
    case SelectorOperator::in: return "In";
    case SelectorOperator::not_in: return "NotIn";
    case SelectorOperator::exists: return "Exists";
    case SelectorOperator::does_not_exist: return "DoesNotExist";
  }
  return "";
}

bool matches(const SelectorRequirement& requirement, const Labels& labels) {
  const auto label = labels.find(requirement.key);
  const bool present = label != labels.end();
  const auto listed = [&] {
    return std::find(requirement.values.begin(), requirement.values.end(), label->second) != requirement.values.end();
  };
  switch (requirement.op) {
    case SelectorOperator::in: return present && listed();
    case SelectorOperator::not_in: return !present || !listed();
    case SelectorOperator::exists: return present;
    case SelectorOperator::does_not_exist: return !present;
  }
  return false;
}

bool matches(const LabelSelector& selector, const Labels& labels) {
  for (const auto& [key, value] : selector.match_labels) {
    const auto label = labels.find(key);
    if (label == labels.end() || label->second != value) return false;
  }
  return std::all_of(selector.match_expressions.begin(), selector.match_expressions.end(),
                     [&](const SelectorRequirement& requirement) { return matches(requirement, labels); });
}

LabelSelector canonical(const LabelSelector& selector) {
  LabelSelector result;
  for (const auto& [key, value] : selector.match_labels) {
    result.match_expressions.push_back({.key = key, .op = SelectorOperator::in, .values = {value}});
  }
  for (SelectorRequirement requirement : selector.match_expressions) {
    auto& values = requirement.values;
    std::sort(values.begin(), values.end());
    values.erase(std::unique(values.begin(), values.end()), values.end());
    result.match_expressions.push_back(std::move(requirement));
  }
  auto& all = result.match_expressions;
  std::sort(all.begin(), all.end());
  all.erase(std::unique(all.begin(), all.end()), all.end());
  return result;
}

std::string text_of(const LabelSelector& selector) {
  if (selector.empty()) return "{}";
  std::string text;
  const auto separate = [&] {
    if (!text.empty()) text += ',';
  };
  for (const auto& [key, value] : selector.match_labels) {
    separate();
    text += key + "=" + value;
  }
  for (const auto& requirement : selector.match_expressions) {
    separate();
    switch (requirement.op) {
      case SelectorOperator::exists: text += requirement.key; continue;
      case SelectorOperator::does_not_exist: text += "!" + requirement.key; continue;
      case SelectorOperator::in:
        if (requirement.values.size() == 1) {
          text += requirement.key + "=" + requirement.values.front();
          continue;
        }
        text += requirement.key + " in (";
        break;
      case SelectorOperator::not_in: text += requirement.key + " notin ("; break;
    }
    for (std::size_t i = 0; i < requirement.values.size(); ++i) text += (i == 0 ? "" : ",") + requirement.values[i];
    text += ')';
  }
  return text;
}

}  // namespace postern
