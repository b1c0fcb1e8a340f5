// JSON text of any kind: bounded work and the limits; and what is accepted, boost::json's own parser accepts too.
#include <boost/json.hpp>

#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/document.hpp"

namespace {

using namespace postern;

constexpr DocumentLimits kLimits{.bytes = 64 << 10, .nodes = 2000, .depth = 16, .documents = 1, .scalar_bytes = 4096};

std::size_t check(const Node& node, const boost::json::value& same, std::size_t depth) {
  if (depth > kLimits.depth || node.scalar.size() > kLimits.scalar_bytes || node.line < 1 || node.column < 1) std::abort();
  std::size_t nodes = 1;
  switch (node.kind) {
    case Node::Kind::null:
      if (!same.is_null()) std::abort();
      break;
    case Node::Kind::boolean:
      if (same != node.boolean) std::abort();
      break;
    case Node::Kind::integer:
      if (!same.is_int64() || same.as_int64() != node.integer) std::abort();
      break;
    case Node::Kind::number:
      if (!same.is_double() && !same.is_uint64()) std::abort();
      break;
    case Node::Kind::string:
      if (!same.is_string() || same.as_string() != node.scalar) std::abort();
      break;
    case Node::Kind::sequence:
      if (!same.is_array() || same.as_array().size() != node.items.size()) std::abort();
      for (std::size_t i = 0; i < node.items.size(); ++i) nodes += check(node.items[i], same.as_array()[i], depth + 1);
      break;
    case Node::Kind::mapping:
      if (!same.is_object() || same.as_object().size() != node.fields.size()) std::abort();
      for (const auto& [key, value] : node.fields) nodes += 1 + check(value, same.as_object().at(key), depth + 1);
      break;
  }
  return nodes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto document = parse_json(text, "f", kLimits);
  if (!document) {
    if (document.error().message.empty() || !document.error().where.starts_with("f")) std::abort();
    return 0;
  }
  boost::system::error_code ec;
  const boost::json::value same = boost::json::parse(text, ec);
  if (ec || check(document->root, same, 0) > kLimits.nodes) std::abort();
  return 0;
}
