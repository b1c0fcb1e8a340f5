// Fields of a tree that somebody else made, by path: what is not there, or is of another kind, is empty.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"

namespace postern::cli {

// A null node where there is no such field.
const Node& node_at(const Node& node, std::initializer_list<std::string_view> path);
// The text of a scalar, or of a key that has dots in it: text_at(pod, {"metadata", "labels", "app.kubernetes.io/name"}).
std::string text_at(const Node& node, std::initializer_list<std::string_view> path);
// 0 where it is no integer.
std::int64_t integer_at(const Node& node, std::initializer_list<std::string_view> path);
const std::vector<Node>& items_at(const Node& node, std::initializer_list<std::string_view> path);

// Of a Pod: "namespace/name"; whether its containers have not all ended; whether it has a sidecar, by its annotation.
std::string key_of(const Node& pod);
bool runs(const Node& pod);
bool is_injected(const Node& pod);

}  // namespace postern::cli
