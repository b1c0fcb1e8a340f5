// Builds the tree of one Document from parser events, within limits. Internal to document_yaml.cpp and document_json.cpp.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "base/document.hpp"

namespace postern {

struct TextPosition {
  int line = 0;
  int column = 0;
};

// "source:line:column"
std::string where_text(std::string_view source, TextPosition at);

// The line and column (of bytes) at `offset`, both from 1.
TextPosition position_of(std::string_view text, std::size_t offset);

class DocumentBuilder {
 public:
  DocumentBuilder(std::string_view source, const DocumentLimits& limits) : source_(source), limits_(limits) {}

  // Each returns false once the text is refused; error() then says why, and the events after it mean nothing.
  bool key(std::string text, TextPosition at);
  bool value(Node scalar);
  bool begin(Node::Kind kind, TextPosition at);
  bool end();

  // True where the next scalar must go to key().
  bool expects_key() const { return !open_.empty() && open_.back().node.is(Node::Kind::mapping) && !open_.back().has_key; }
  bool refuse(TextPosition at, std::string message);
  const Error& error() const { return error_; }
  // The finished tree; the builder is then ready for the next document. Counts go on: the limits are of the whole text.
  Node take();

 private:
  struct Open {
    Node node;
    bool has_key = false;
    std::string key;
    std::unordered_set<std::string> seen;  // filled once a mapping is too long to search
  };
  bool count(std::size_t scalar_bytes, TextPosition at);
  bool is_duplicate(Open& open, const std::string& key);
  void attach(Node node);

  std::string_view source_;
  DocumentLimits limits_;
  std::vector<Open> open_;
  Node root_;
  std::size_t nodes_ = 0;
  std::size_t bytes_ = 0;
  Error error_;
};

// Why `text` is refused before it is parsed: too long, not UTF-8, or with control characters.
Result<void> check_text(std::string_view text, std::string_view source, const DocumentLimits& limits);

}  // namespace postern
