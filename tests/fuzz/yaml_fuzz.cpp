// YAML text of any kind: bounded work, a tree within the limits, and no key twice.
#include <cstdint>
#include <cstdlib>
#include <set>
#include <string_view>

#include "base/document.hpp"

namespace {

using namespace postern;

constexpr DocumentLimits kLimits{.bytes = 64 << 10, .nodes = 2000, .depth = 16, .documents = 50, .scalar_bytes = 4096};

std::size_t check(const Node& node, std::size_t depth) {
  const bool is_collection = node.is(Node::Kind::sequence) || node.is(Node::Kind::mapping);
  if (is_collection && depth == kLimits.depth) std::abort();
  if (node.scalar.size() > kLimits.scalar_bytes || node.line < 1 || node.column < 1) std::abort();
  if (!is_collection && (!node.items.empty() || !node.fields.empty())) std::abort();
  std::size_t nodes = 1;
  for (const Node& item : node.items) nodes += check(item, depth + 1);
  std::set<std::string_view> keys;
  for (const auto& [key, value] : node.fields) {
    if (!keys.insert(key).second || node.find(key) != &value) std::abort();
    nodes += 1 + check(value, depth + 1);
  }
  return nodes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto documents = parse_yaml(text, "f", kLimits);
  if (!documents) {
    if (documents.error().message.empty() || !documents.error().where.starts_with("f")) std::abort();
    return 0;
  }
  std::size_t nodes = 0;
  for (const Document& document : *documents) nodes += check(document.root, 0);
  if (nodes > kLimits.nodes || documents->size() > kLimits.documents) std::abort();
  return 0;
}
