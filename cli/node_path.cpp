#include "cli/node_path.hpp"

namespace postern::cli {

const Node& node_at(const Node& node, std::initializer_list<std::string_view> path) {
  static const Node nothing;
  const Node* at = &node;
  for (const std::string_view key : path) {
    at = at->find(key);
    if (at == nullptr) return nothing;
  }
  return *at;
}

std::string text_at(const Node& node, std::initializer_list<std::string_view> path) {
  const Node& found = node_at(node, path);
  return found.is(Node::Kind::null) ? std::string() : found.scalar;
}

std::int64_t integer_at(const Node& node, std::initializer_list<std::string_view> path) {
  const Node& found = node_at(node, path);
  return found.is(Node::Kind::integer) ? found.integer : 0;
}

const std::vector<Node>& items_at(const Node& node, std::initializer_list<std::string_view> path) { return node_at(node, path).items; }

std::string key_of(const Node& pod) { return text_at(pod, {"metadata", "namespace"}) + "/" + text_at(pod, {"metadata", "name"}); }

bool runs(const Node& pod) {
  const std::string phase = text_at(pod, {"status", "phase"});
  return phase != "Succeeded" && phase != "Failed";
}

bool is_injected(const Node& pod) { return text_at(pod, {"metadata", "annotations", "postern.dev/injected"}) == "true"; }

}  // namespace postern::cli
