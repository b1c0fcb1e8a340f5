// Typing of YAML scalars as the Kubernetes tools do it (sigs.k8s.io/yaml, which is YAML 1.1). Internal to document_yaml.cpp.
#pragma once

#include <string>
#include <string_view>

#include "base/document.hpp"

namespace postern {

// Types a plain scalar: null, boolean (also yes, no, on, off, y, n), integer (decimal, 0x, 0o, 0b, leading 0: octal; '_' ignored),
// number, else string. A number without a fraction is an integer, because YAML reaches Kubernetes through JSON (80.0 becomes 80).
// Sets kind, boolean, integer and scalar of `node`.
void type_plain_scalar(std::string text, Node& node);

// Types a scalar by its resolved tag ("?" for plain, "!" for quoted, else the full name). Why it cannot be had, or empty.
std::string type_tagged_scalar(std::string_view tag, std::string text, Node& node);

// The text of a scalar used as a key, as the Kubernetes tools turn it into JSON; nothing for null and fractions.
bool key_text(const Node& node, std::string& key);

}  // namespace postern
