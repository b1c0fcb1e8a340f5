#include "base/document_builder.hpp"

#include <algorithm>

#include "base/utf8.hpp"

namespace postern {

std::string where_text(std::string_view source, TextPosition at) {
  return std::string(source) + ":" + std::to_string(at.line) + ":" + std::to_string(at.column);
}

TextPosition position_of(std::string_view text, std::size_t offset) {
  const std::string_view before = text.substr(0, offset);
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == std::string_view::npos ? before.size() : before.size() - newline - 1;
  return {static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1, static_cast<int>(column) + 1};
}

bool DocumentBuilder::refuse(TextPosition at, std::string message) {
  error_ = Error{std::move(message), where_text(source_, at)};
  return false;
}

bool DocumentBuilder::count(std::size_t scalar_bytes, TextPosition at) {
  if (++nodes_ > limits_.nodes) return refuse(at, "more than " + std::to_string(limits_.nodes) + " values, counting what aliases repeat");
  if (scalar_bytes > limits_.scalar_bytes) return refuse(at, "a scalar longer than " + std::to_string(limits_.scalar_bytes) + " bytes");
  bytes_ += scalar_bytes;
  if (bytes_ > limits_.bytes) return refuse(at, "more than " + std::to_string(limits_.bytes) + " bytes, counting what aliases repeat");
  return true;
}

bool DocumentBuilder::is_duplicate(Open& open, const std::string& key) {
  constexpr std::size_t kSearched = 16;  // up to here a search is cheaper than a set
  const auto& fields = open.node.fields;
  if (fields.size() < kSearched) {
    return std::any_of(fields.begin(), fields.end(), [&](const auto& field) { return field.first == key; });
  }
  if (open.seen.empty()) {
    for (const auto& [name, unused] : fields) open.seen.insert(name);
  }
  return !open.seen.insert(key).second;
}

bool DocumentBuilder::key(std::string text, TextPosition at) {
  if (!count(text.size(), at)) return false;
  Open& open = open_.back();
  if (is_duplicate(open, text)) return refuse(at, "the key \"" + text + "\" stands twice in this mapping; remove one of them");
  open.key = std::move(text);
  open.has_key = true;
  return true;
}

void DocumentBuilder::attach(Node node) {
  if (open_.empty()) {
    root_ = std::move(node);
    return;
  }
  Open& parent = open_.back();
  if (parent.node.is(Node::Kind::sequence)) {
    parent.node.items.push_back(std::move(node));
  } else {
    parent.node.fields.emplace_back(std::move(parent.key), std::move(node));
    parent.has_key = false;
  }
}

bool DocumentBuilder::value(Node scalar) {
  if (!count(scalar.scalar.size(), {scalar.line, scalar.column})) return false;
  attach(std::move(scalar));
  return true;
}

bool DocumentBuilder::begin(Node::Kind kind, TextPosition at) {
  if (!count(0, at)) return false;
  if (open_.size() == limits_.depth) return refuse(at, "nested deeper than " + std::to_string(limits_.depth) + " levels");
  if (expects_key()) return refuse(at, "a key must be a scalar, not " + std::string(name_of(kind)));
  Open open;
  open.node.kind = kind;
  open.node.line = at.line;
  open.node.column = at.column;
  open_.push_back(std::move(open));
  return true;
}

bool DocumentBuilder::end() {
  Node node = std::move(open_.back().node);
  open_.pop_back();
  attach(std::move(node));
  return true;
}

Node DocumentBuilder::take() { return std::exchange(root_, Node{}); }

Result<void> check_text(std::string_view text, std::string_view source, const DocumentLimits& limits) {
  if (text.size() > limits.bytes) {
    return Error{"longer than " + std::to_string(limits.bytes) + " bytes; split it into several files", std::string(source)};
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    if (length == 0) return Error{"not UTF-8", where_text(source, position_of(text, at))};
    const auto c = static_cast<unsigned char>(text[at]);
    if ((c < 0x20 && c != '\t' && c != '\n' && c != '\r') || c == 0x7F) {
      return Error{"a control character; only tabs and line ends are expected", where_text(source, position_of(text, at))};
    }
    at += length;
  }
  return {};
}

}  // namespace postern
