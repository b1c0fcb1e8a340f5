#include "control/json_patch.hpp"

#include <algorithm>

#include "base/document_writer.hpp"

namespace postern {
namespace {

using Patch = std::vector<PatchOperation>;
using Op = PatchOperation::Kind;

std::string child(const std::string& path, std::string_view key) {
  std::string out = path + "/";
  for (const char c : key) {
    if (c == '~') {
      out += "~0";
    } else if (c == '/') {
      out += "~1";
    } else {
      out += c;
    }
  }
  return out;
}

std::string child(const std::string& path, std::size_t index) { return path + "/" + std::to_string(index); }

// What tells one item of a list from another: its name, as in most lists of the API, else its value.
bool is_same_item(const Node& a, const Node& b) {
  const Node* name = a.find("name");
  const Node* other = b.find("name");
  if (name != nullptr && other != nullptr) return name->scalar == other->scalar;
  return same_value(a, b);
}

bool are_same_items(const Node& before, const Node& after, std::size_t offset) {
  for (std::size_t i = 0; i < before.items.size(); ++i) {
    if (!is_same_item(before.items[i], after.items[i + offset])) return false;
  }
  return true;
}

void compare(const Node& before, const Node& after, const std::string& path, Patch& out);

void compare_lists(const Node& before, const Node& after, const std::string& path, Patch& out) {
  const std::size_t old_count = before.items.size();
  const std::size_t count = after.items.size();
  const bool grew = count >= old_count && old_count > 0;
  const bool at_end = grew && are_same_items(before, after, 0);
  const bool at_front = grew && !at_end && are_same_items(before, after, count - old_count);
  if (!at_end && !at_front) {
    out.push_back({Op::replace, path, after});
    return;
  }
  const std::size_t offset = at_front ? count - old_count : 0;
  for (std::size_t i = 0; i < offset; ++i) out.push_back({Op::add, child(path, i), after.items[i]});
  for (std::size_t i = 0; i < old_count; ++i) compare(before.items[i], after.items[i + offset], child(path, i + offset), out);
  for (std::size_t i = old_count; !at_front && i < count; ++i) out.push_back({Op::add, path + "/-", after.items[i]});
}

void compare(const Node& before, const Node& after, const std::string& path, Patch& out) {
  if (same_value(before, after)) return;
  if (before.is(Node::Kind::sequence) && after.is(Node::Kind::sequence)) {
    compare_lists(before, after, path, out);
    return;
  }
  if (!before.is(Node::Kind::mapping) || !after.is(Node::Kind::mapping)) {
    out.push_back({Op::replace, path, after});
    return;
  }
  for (const auto& [key, value] : before.fields) {
    if (after.find(key) == nullptr) out.push_back({Op::remove, child(path, key), {}});
  }
  for (const auto& [key, value] : after.fields) {
    const Node* old = before.find(key);
    if (old == nullptr) {
      out.push_back({Op::add, child(path, key), value});
    } else {
      compare(*old, value, child(path, key), out);
    }
  }
}

}  // namespace

Patch json_patch(const Node& before, const Node& after) {
  Patch out;
  compare(before, after, "", out);
  return out;
}

std::string json_patch_text(const Patch& patch) {
  Node list = make_list({});
  for (const PatchOperation& operation : patch) {
    const std::string_view op = operation.kind == Op::add ? "add" : operation.kind == Op::replace ? "replace" : "remove";
    Node item = make_object({{"op", make_text(op)}, {"path", make_text(operation.path)}});
    if (operation.kind != Op::remove) field_of(item, "value") = operation.value;
    list.items.push_back(std::move(item));
  }
  return json_text(list);
}

}  // namespace postern
