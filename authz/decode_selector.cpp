#include "authz/decode_selector.hpp"

#include <optional>

namespace postern {
namespace {

std::optional<SelectorOperator> operator_of(std::string_view name) {
  for (const auto op : {SelectorOperator::in, SelectorOperator::not_in, SelectorOperator::exists, SelectorOperator::does_not_exist}) {
    if (name == name_of(op)) return op;
  }
  return std::nullopt;
}

SelectorRequirement decode_requirement(const Field& field) {
  SelectorRequirement out;
  field.expect_only({"key", "operator", "values"});
  if (!field.is_mapping()) return out;
  const Field key = field["key"];
  out.key = key.string();
  key.refuse_value(shown(out.key), label_key_faults(out.key));

  const Field values = field["values"];
  for (const Field& item : values.items()) {
    out.values.push_back(item.string());
    item.refuse_value(shown(out.values.back()), label_value_faults(out.values.back()));
  }

  const Field name = field["operator"];
  const auto op = operator_of(name.string());
  if (!op) {
    name.refuse_value(shown(name.string()), {"not a valid selector operator; expected In, NotIn, Exists or DoesNotExist"});
    return out;
  }
  out.op = *op;
  const bool takes_values = out.op == SelectorOperator::in || out.op == SelectorOperator::not_in;
  if (takes_values && out.values.empty()) values.refuse("Required value: must be specified when `operator` is 'In' or 'NotIn'");
  if (!takes_values && !out.values.empty()) values.refuse("Forbidden: may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
  return out;
}

}  // namespace

LabelSelector decode_selector(const Field& field) {
  LabelSelector out;
  field.expect_only({"matchLabels", "matchExpressions"});
  if (!field.is_mapping()) return out;
  out.match_labels = field["matchLabels"].labels();
  for (const Field& item : field["matchExpressions"].items()) out.match_expressions.push_back(decode_requirement(item));
  return out;
}

}  // namespace postern
