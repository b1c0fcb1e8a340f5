#include "base/document_writer.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cstdlib>

#include "base/log.hpp"
#include "base/yaml_scalar.hpp"

namespace postern {
namespace {

using Kind = Node::Kind;

std::string number_text(const Node& node) {
  if (node.is(Kind::integer)) return std::to_string(node.integer);
  if (node.scalar.find_first_of(".eE") == std::string::npos) return node.scalar;  // an integer that no int64 holds
  std::array<char, 64> text{};
  const auto [end, error] = std::to_chars(text.data(), text.data() + text.size(), std::strtod(node.scalar.c_str(), nullptr));
  return error == std::errc{} ? std::string(text.data(), end) : node.scalar;
}

std::string scalar_text(const Node& node) {
  switch (node.kind) {
    case Kind::null: return "null";
    case Kind::boolean: return node.boolean ? "true" : "false";
    case Kind::integer:
    case Kind::number: return number_text(node);
    case Kind::string:
    case Kind::sequence:
    case Kind::mapping: break;
  }
  std::string out;
  append_json_string(out, node.scalar);
  return out;
}

bool is_collection(const Node& node) { return node.is(Kind::mapping) || node.is(Kind::sequence); }
bool is_empty(const Node& node) { return node.items.empty() && node.fields.empty(); }

void json_into(std::string& out, const Node& node) {
  if (!is_collection(node)) {
    out += scalar_text(node);
    return;
  }
  const bool is_mapping = node.is(Kind::mapping);
  out += is_mapping ? '{' : '[';
  std::string_view separator;
  for (const Node& item : node.items) {
    out += separator;
    json_into(out, item);
    separator = ",";
  }
  for (const auto& [key, value] : node.fields) {
    out += separator;
    append_json_string(out, key);
    out += ':';
    json_into(out, value);
    separator = ",";
  }
  out += is_mapping ? '}' : ']';
}

// Without quotes, to every YAML reader this string and nothing else.
bool is_plain(std::string_view text) {
  if (text.empty() || text.back() == ':') return false;
  const auto is_word = [](char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9'); };
  if (!is_word(text.front()) && text.front() != '/' && text.front() != '_') return false;
  constexpr std::string_view kInner = "_-./:@+=(),$";
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (is_word(c) || (c == ' ' && i + 1 < text.size() && text[i + 1] != '#' && text[i - 1] != ':' && text[i - 1] != ' ')) continue;
    if (kInner.find(c) == std::string_view::npos) return false;
  }
  if (text.find(": ") != std::string_view::npos) return false;
  Node typed;
  type_plain_scalar(std::string(text), typed);
  // YAML 1.1 also has base 60 and dates; what begins with a digit is plain only where a letter says that it is neither.
  const bool is_digit_first = text.front() >= '0' && text.front() <= '9';
  const bool has_letter = std::any_of(text.begin(), text.end(), [](char c) { return (c >= 'g' && c <= 'z') || (c >= 'G' && c <= 'Z'); });
  return typed.is(Kind::string) && (!is_digit_first || has_letter);
}

// A literal block can say it: several lines, without control characters, and no line that the block's indentation would be lost on.
bool is_block(std::string_view text) {
  if (text.find('\n') == std::string_view::npos || text.front() == ' ' || text.front() == '\n' || text.front() == '\t') return false;
  if (text.ends_with("\n\n")) return false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c == '\n') {
      if (i > 0 && (text[i - 1] == ' ' || text[i - 1] == '\t')) return false;
    } else if ((c < 0x20 && c != '\t') || c >= 0x7F) {
      return false;
    }
  }
  return text.back() != ' ' && text.back() != '\t';
}

std::string key_text_of(std::string_view key) {
  if (is_plain(key)) return std::string(key);
  std::string out;
  append_json_string(out, key);
  return out;
}

void block_into(std::string& out, std::string_view text, std::size_t depth) {
  const bool ends_line = text.ends_with('\n');
  out += ends_line ? "|\n" : "|-\n";
  if (ends_line) text.remove_suffix(1);
  while (true) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (end > 0) out.append(depth, ' ').append(text.substr(0, end));
    out += '\n';
    if (end == text.size()) return;
    text.remove_prefix(end + 1);
  }
}

void yaml_into(std::string& out, const Node& node, std::size_t depth);

// What follows "key:" or, in a list, "-"; with the line's end.
void value_into(std::string& out, const Node& node, std::size_t depth) {
  if (is_collection(node)) {
    out += node.is(Kind::mapping) ? " {}\n" : " []\n";
  } else if (node.is(Kind::string) && is_block(node.scalar)) {
    out += ' ';
    block_into(out, node.scalar, depth + 2);
  } else if (node.is(Kind::string) && is_plain(node.scalar)) {
    out.append(" ").append(node.scalar).append("\n");
  } else {
    out.append(" ").append(scalar_text(node)).append("\n");
  }
}

// The first line of a list's item stands behind its "- "; `depth` is that of the further ones.
void fields_into(std::string& out, const Node& node, std::size_t depth, bool is_item) {
  for (std::size_t i = 0; i < node.fields.size(); ++i) {
    const auto& [key, value] = node.fields[i];
    if (i > 0 || !is_item) out.append(depth, ' ');
    out.append(key_text_of(key)).append(":");
    if (!is_collection(value) || is_empty(value)) {
      value_into(out, value, depth);
      continue;
    }
    out += '\n';
    yaml_into(out, value, value.is(Kind::mapping) ? depth + 2 : depth);
  }
}

void yaml_into(std::string& out, const Node& node, std::size_t depth) {
  if (node.is(Kind::mapping)) {
    fields_into(out, node, depth, false);
    return;
  }
  for (const Node& item : node.items) {
    out.append(depth, ' ').append("-");
    if (!is_collection(item) || is_empty(item)) {
      value_into(out, item, depth);
    } else if (item.is(Kind::mapping)) {
      out += ' ';
      fields_into(out, item, depth + 2, true);
    } else {
      out += '\n';
      yaml_into(out, item, depth + 2);
    }
  }
}

}  // namespace

Node make_text(std::string_view text) {
  Node node;
  node.kind = Kind::string;
  node.scalar = text;
  return node;
}

Node make_integer(std::int64_t value) {
  Node node;
  node.kind = Kind::integer;
  node.integer = value;
  node.scalar = std::to_string(value);
  return node;
}

Node make_boolean(bool value) {
  Node node;
  node.kind = Kind::boolean;
  node.boolean = value;
  node.scalar = value ? "true" : "false";
  return node;
}

Node make_list(std::vector<Node> items) {
  Node node;
  node.kind = Kind::sequence;
  node.items = std::move(items);
  return node;
}

Node make_object(std::vector<std::pair<std::string, Node>> fields) {
  Node node;
  node.kind = Kind::mapping;
  node.fields = std::move(fields);
  return node;
}

Node& field_of(Node& object, std::string_view key) {
  object.kind = Kind::mapping;
  for (auto& [name, value] : object.fields) {
    if (name == key) return value;
  }
  return object.fields.emplace_back(std::string(key), Node()).second;
}

void remove_field(Node& object, std::string_view key) {
  std::erase_if(object.fields, [&](const auto& field) { return field.first == key; });
}

bool same_value(const Node& a, const Node& b) {
  if (a.kind != b.kind || a.items.size() != b.items.size() || a.fields.size() != b.fields.size()) return false;
  if (!is_collection(a)) return a.is(Kind::string) ? a.scalar == b.scalar : scalar_text(a) == scalar_text(b);
  if (!std::equal(a.items.begin(), a.items.end(), b.items.begin(), same_value)) return false;
  return std::all_of(a.fields.begin(), a.fields.end(), [&](const auto& field) {
    const Node* other = b.find(field.first);
    return other != nullptr && same_value(field.second, *other);
  });
}

std::string json_text(const Node& node) {
  std::string out;
  json_into(out, node);
  return out;
}

std::string yaml_text(const Node& node) {
  std::string out;
  if (is_collection(node) && !is_empty(node)) {
    yaml_into(out, node, 0);
    return out;
  }
  value_into(out, node, 0);
  return out.substr(1);
}

}  // namespace postern
