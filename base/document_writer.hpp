// Making trees by hand, and writing them as text: the way back of document.hpp. What is written reads as the same tree again.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/document.hpp"

namespace postern {

Node make_text(std::string_view text);
Node make_integer(std::int64_t value);
Node make_boolean(bool value);
Node make_list(std::vector<Node> items);
Node make_object(std::vector<std::pair<std::string, Node>> fields);

// The field of that name, added (null) at the end where there is none. REQUIRES: `object` is a mapping, or null, which then becomes one.
Node& field_of(Node& object, std::string_view key);
// Takes a field away, if it is there.
void remove_field(Node& object, std::string_view key);

// The same value, wherever it stood: kinds, scalars, items in order, fields in any order.
bool same_value(const Node& a, const Node& b);

// JSON without white space (RFC 8259), fields in their order.
std::string json_text(const Node& node);
// One YAML document in block style, as kubectl prints: strings are quoted where plain they would be something else to YAML 1.1 or 1.2,
// and those of several lines become literal blocks where that says them exactly.
std::string yaml_text(const Node& node);

}  // namespace postern
