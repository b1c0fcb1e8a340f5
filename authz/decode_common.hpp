// What the decoders of Kubernetes objects share: a walk over a Document that knows its field path and collects what is wrong.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "authz/kubernetes_names.hpp"
#include "authz/labels.hpp"
#include "base/document.hpp"
#include "base/ip.hpp"

namespace postern {

// Something that was accepted, but may not mean what its author thinks.
struct Warning {
  std::string where;  // "file:line: field.path"
  std::string message;

  std::string text() const { return where + ": " + message; }
  bool operator==(const Warning&) const = default;
};

// The problems of one load. Decoders go on after a problem, so that a person sees all of them at once; what they return then
// means nothing.
class Decoding {
 public:
  explicit Decoding(std::string source) : source_(std::move(source)) {}

  const std::string& source() const { return source_; }
  void set_source(std::string source) { source_ = std::move(source); }
  void refuse(int line, std::string_view path, std::string message);
  void warn(int line, std::string_view path, std::string message);
  bool ok() const { return errors_.empty(); }
  // The first problem, with the next few in its message. REQUIRES: !ok()
  Error error() const;
  const std::vector<Error>& errors() const { return errors_; }
  std::vector<Warning>& warnings() { return warnings_; }
  std::string where(int line, std::string_view path) const;

 private:
  std::string source_;
  std::vector<Error> errors_;
  std::vector<Warning> warnings_;
};

// A number or a name: the API's IntOrString. Nothing when the field is absent or refused.
using IntOrString = std::variant<std::monostate, std::int64_t, std::string>;

// One field of an object, present or not. As for the API server, null and absent are the same. Reading it as a type it has not
// refuses it and yields that type's empty value.
class Field {
 public:
  Field(Decoding& decoding, const Node& node, std::string path = {})
      : decoding_(&decoding), node_(&node), path_(std::move(path)), line_(node.line) {}

  bool present() const { return node_ != nullptr && !node_->is(Node::Kind::null); }
  const std::string& path() const { return path_; }
  int line() const { return line_; }
  Decoding& decoding() const { return *decoding_; }
  // REQUIRES: present()
  const Node& node() const { return *node_; }

  Field operator[](std::string_view key) const;  // of a mapping
  std::vector<Field> items() const;
  std::string string(std::string_view fallback = {}) const;
  std::optional<std::int64_t> integer() const;
  bool boolean(bool fallback = false) const;
  IntOrString int_or_string() const;
  // 1 to 65535.
  std::optional<Port> port() const;
  std::optional<Protocol> protocol() const;  // absent: TCP
  std::optional<IpAddress> address() const;
  // A mapping of strings, unchecked.
  Labels strings() const;
  // A mapping of strings that are labels by the API's rules.
  Labels labels() const;

  bool is_mapping() const;  // absent counts as an empty one
  // Refuses every other field: a typo that the API server would drop can widen what a policy allows.
  void expect_only(std::initializer_list<std::string_view> names) const;

  void refuse(std::string message) const;
  // Refuses with each fault, as "Invalid value: <value>: <fault>".
  void refuse_value(std::string_view value, const NameFaults& faults) const;
  void warn(std::string message) const;

 private:
  Field(Decoding& decoding, const Node* node, std::string path, int line)
      : decoding_(&decoding), node_(node), path_(std::move(path)), line_(line) {}
  bool has_kind(Node::Kind kind) const;

  Decoding* decoding_;
  const Node* node_;
  std::string path_;
  int line_;  // of the nearest enclosing value when absent
};

// Text from a manifest as it may go into a message: quoted, and cut where it is long.
std::string shown(std::string_view text);
// Unsupported value: "x": supported values: "A", "B"
std::string unsupported(std::string_view value, std::initializer_list<std::string_view> supported);
bool is_port_number(std::int64_t number);

// metadata of any object, checked: the API's names and labels. `ns` is "default" where a namespaced object names none.
struct ObjectMeta {
  std::string ns;
  std::string name;
  std::string uid;
  std::int64_t generation = 0;
  Labels labels;
  bool deleted = false;  // deletionTimestamp is set
};

enum class Scope : std::uint8_t { namespaced, cluster };
ObjectMeta decode_metadata(const Field& object, Scope scope);

}  // namespace postern
