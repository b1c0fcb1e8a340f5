#include "base/yaml_scalar.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <optional>

namespace postern {
namespace {

constexpr std::string_view kCorePrefix = "tag:yaml.org,2002:";
constexpr std::array<std::string_view, 11> kTrue = {"y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"};
constexpr std::array<std::string_view, 11> kFalse = {"n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"};
constexpr std::array<std::string_view, 5> kNull = {"", "~", "null", "Null", "NULL"};

template <std::size_t N>
bool one_of(const std::array<std::string_view, N>& names, std::string_view text) {
  return std::find(names.begin(), names.end(), text) != names.end();
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::size_t take_digits(std::string_view& text) {
  std::size_t count = 0;
  while (count < text.size() && is_digit(text[count])) ++count;
  text.remove_prefix(count);
  return count;
}

// [-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?
bool looks_like_number(std::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  std::size_t digits = take_digits(text);
  if (!text.empty() && text.front() == '.') {
    text.remove_prefix(1);
    digits += take_digits(text);
  }
  if (digits == 0) return false;
  if (!text.empty() && (text.front() == 'e' || text.front() == 'E')) {
    text.remove_prefix(1);
    if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
    if (take_digits(text) == 0) return false;
  }
  return text.empty();
}

enum class IntegerForm : std::uint8_t { none, fits, too_big };

// Go's strconv.ParseInt with base 0.
IntegerForm parse_integer(std::string_view text, std::int64_t& out) {
  const bool negative = text.starts_with('-');
  if (negative || text.starts_with('+')) text.remove_prefix(1);
  int base = 10;
  if (text.size() > 1 && text[0] == '0') {
    const char mark = static_cast<char>(text[1] | 0x20);
    base = mark == 'x' ? 16 : mark == 'b' ? 2 : 8;
    text.remove_prefix(mark == 'x' || mark == 'b' || mark == 'o' ? 2 : 1);
  }
  if (text.empty() || text.front() == '-' || text.front() == '+') return IntegerForm::none;
  std::uint64_t magnitude = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), magnitude, base);
  if (end != text.data() + text.size()) return IntegerForm::none;
  constexpr std::uint64_t kMax = 0x7FFFFFFFFFFFFFFFULL;
  if (error == std::errc::result_out_of_range || magnitude > kMax + (negative ? 1 : 0)) return IntegerForm::too_big;
  out = static_cast<std::int64_t>(negative ? 0 - magnitude : magnitude);
  return IntegerForm::fits;
}

// Sets kind to integer or number if `text` (already without '_') is one.
bool type_number(const std::string& text, Node& node) {
  switch (parse_integer(text, node.integer)) {
    case IntegerForm::fits: node.kind = Node::Kind::integer; return true;
    case IntegerForm::too_big: node.kind = Node::Kind::number; return true;
    case IntegerForm::none: break;
  }
  if (!looks_like_number(text)) return false;
  const double value = std::strtod(text.c_str(), nullptr);
  if (!std::isfinite(value)) return false;
  node.kind = Node::Kind::number;
  constexpr double kExact = 9007199254740992.0;  // 2^53: up to here every integer has its own double
  if (std::fabs(value) <= kExact && std::trunc(value) == value) {
    node.kind = Node::Kind::integer;
    node.integer = static_cast<std::int64_t>(value);
  }
  return true;
}

std::optional<Node::Kind> kind_of_tag(std::string_view name) {
  if (name == "null") return Node::Kind::null;
  if (name == "bool") return Node::Kind::boolean;
  if (name == "int") return Node::Kind::integer;
  if (name == "float") return Node::Kind::number;
  if (name == "str") return Node::Kind::string;
  return std::nullopt;
}

}  // namespace

void type_plain_scalar(std::string text, Node& node) {
  node.kind = Node::Kind::string;
  if (one_of(kNull, text)) {
    node.kind = Node::Kind::null;
  } else if (one_of(kTrue, text) || one_of(kFalse, text)) {
    node.kind = Node::Kind::boolean;
    node.boolean = one_of(kTrue, text);
  } else if (is_digit(text.front()) || text.front() == '-' || text.front() == '+' || text.front() == '.') {
    std::string bare = text;
    if (text.front() != '.') bare.erase(std::remove(bare.begin(), bare.end(), '_'), bare.end());
    type_number(bare, node);
  }
  node.scalar = std::move(text);
}

std::string type_tagged_scalar(std::string_view tag, std::string text, Node& node) {
  if (tag == "?" || tag.empty()) {
    type_plain_scalar(std::move(text), node);
    return {};
  }
  if (tag == "!") {
    node.kind = Node::Kind::string;
    node.scalar = std::move(text);
    return {};
  }
  const auto wanted = tag.starts_with(kCorePrefix) ? kind_of_tag(tag.substr(kCorePrefix.size())) : std::nullopt;
  if (!wanted) return "the tag \"" + std::string(tag) + "\" is not supported; leave it out";
  if (*wanted == Node::Kind::string) {
    node.kind = Node::Kind::string;
    node.scalar = std::move(text);
    return {};
  }
  type_plain_scalar(std::move(text), node);
  if (node.is(*wanted) || (*wanted == Node::Kind::number && node.is(Node::Kind::integer))) return {};
  return "\"" + node.scalar + "\" is not what its tag says; expected " + std::string(name_of(*wanted));
}

bool key_text(const Node& node, std::string& key) {
  switch (node.kind) {
    case Node::Kind::string: key = node.scalar; return true;
    case Node::Kind::boolean: key = node.boolean ? "true" : "false"; return true;
    case Node::Kind::integer: key = std::to_string(node.integer); return true;
    case Node::Kind::null:
    case Node::Kind::number:
    case Node::Kind::sequence:
    case Node::Kind::mapping: return false;
  }
  return false;
}

}  // namespace postern
