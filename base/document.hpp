// Document: a parsed tree with line and column, the one input of every decoder. YAML and JSON both become one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace postern {

// One value of the tree. Mappings keep their order; a duplicate key is refused when the text is parsed.
struct Node {
  enum class Kind : std::uint8_t { null, boolean, integer, number, string, sequence, mapping };

  Kind kind = Kind::null;
  int line = 0;    // from 1
  int column = 0;  // from 1
  bool boolean = false;
  std::int64_t integer = 0;
  std::string scalar;  // the text of any scalar
  std::vector<Node> items;
  std::vector<std::pair<std::string, Node>> fields;

  Node() = default;
  Node(const Node&) = default;
  Node(Node&&) = default;
  Node& operator=(const Node&) = default;
  Node& operator=(Node&&) = default;
  ~Node();  // written out: clang 14 (the fuzzers) cannot make one up while `fields` holds an incomplete Node

  bool is(Kind k) const { return kind == k; }
  // The field of a mapping, or nullptr (also for anything that is not a mapping).
  const Node* find(std::string_view key) const;
};

inline Node::~Node() = default;

std::string_view name_of(Node::Kind kind);  // "a string", "a list", ... for messages

struct Document {
  std::string source;  // file name, or what the text came from; for messages
  Node root;
};

// What the text may make us hold; beyond any of them the whole text is refused.
struct DocumentLimits {
  std::size_t bytes = 4U << 20;     // of text
  std::size_t nodes = 400'000;      // after aliases have been expanded
  std::size_t depth = 64;           // of nesting
  std::size_t documents = 100'000;  // in one text
  std::size_t scalar_bytes = 1U << 20;
};

// Parses every YAML document of the text ("---" separates them; empty ones are left out). Plain scalars are typed
// as the Kubernetes tools type them (sigs.k8s.io/yaml, which is YAML 1.1: also yes, no, on, off, y and n are booleans; 010 is
// octal), quoted ones are strings. Duplicate keys, merge keys and tags beyond the core ones are refused. Errors name
// source:line:column.
Result<std::vector<Document>> parse_yaml(std::string_view text, std::string_view source, const DocumentLimits& limits = {});

// Parses one JSON text (RFC 8259); duplicate keys are refused.
Result<Document> parse_json(std::string_view text, std::string_view source, const DocumentLimits& limits = {});

}  // namespace postern
