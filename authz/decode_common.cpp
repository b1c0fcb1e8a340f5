#include "authz/decode_common.hpp"

#include <algorithm>

namespace postern {
namespace {

constexpr std::string_view kPortRange = "must be between 1 and 65535, inclusive";

std::string mismatch(std::string_view expected, const Node& found) {
  std::string message = "expected " + std::string(expected) + ", found " + std::string(name_of(found.kind));
  if (expected == "a string" && !found.is(Node::Kind::mapping) && !found.is(Node::Kind::sequence)) {
    message += "; put it in quotes: \"" + found.scalar + "\"";
  }
  return message;
}

}  // namespace

std::string Decoding::where(int line, std::string_view path) const {
  std::string out = source_ + ":" + std::to_string(line);
  if (!path.empty()) out.append(": ").append(path);
  return out;
}

void Decoding::refuse(int line, std::string_view path, std::string message) {
  constexpr std::size_t kMost = 100;  // enough for a person; a hostile file could cause one per byte
  Error error{std::move(message), where(line, path)};
  const auto same = [&](const Error& one) { return one.where == error.where && one.message == error.message; };
  if (errors_.size() < kMost && std::none_of(errors_.begin(), errors_.end(), same)) errors_.push_back(std::move(error));
}

void Decoding::warn(int line, std::string_view path, std::string message) {
  constexpr std::size_t kMost = 1000;
  if (warnings_.size() < kMost) warnings_.push_back({where(line, path), std::move(message)});
}

Error Decoding::error() const {
  constexpr std::size_t kShown = 5;
  Error out = errors_.front();
  for (std::size_t i = 1; i < std::min(errors_.size(), kShown); ++i) out.message += "; also " + errors_[i].text();
  if (errors_.size() > kShown) out.message += "; and " + std::to_string(errors_.size() - kShown) + " more";
  return out;
}

Field Field::operator[](std::string_view key) const {
  const Node* child = has_kind(Node::Kind::mapping) ? node_->find(key) : nullptr;
  std::string path = path_;
  if (!path.empty()) path += '.';
  path += key;
  return {*decoding_, child, std::move(path), child == nullptr ? line_ : child->line};
}

bool Field::has_kind(Node::Kind kind) const {
  if (!present()) return false;
  if (node_->is(kind)) return true;
  refuse(mismatch(name_of(kind), *node_));
  return false;
}

std::vector<Field> Field::items() const {
  std::vector<Field> out;
  if (!has_kind(Node::Kind::sequence)) return out;
  out.reserve(node_->items.size());
  for (std::size_t i = 0; i < node_->items.size(); ++i) {
    const Node& item = node_->items[i];
    out.push_back(Field(*decoding_, &item, path_ + "[" + std::to_string(i) + "]", item.line));
  }
  return out;
}

std::string Field::string(std::string_view fallback) const { return has_kind(Node::Kind::string) ? node_->scalar : std::string(fallback); }

std::optional<std::int64_t> Field::integer() const {
  if (!has_kind(Node::Kind::integer)) return std::nullopt;
  return node_->integer;
}

bool Field::boolean(bool fallback) const { return has_kind(Node::Kind::boolean) ? node_->boolean : fallback; }

IntOrString Field::int_or_string() const {
  if (!present()) return {};
  if (node_->is(Node::Kind::integer)) return node_->integer;
  if (node_->is(Node::Kind::string)) return node_->scalar;
  refuse(mismatch("an integer or a string", *node_));
  return {};
}

std::optional<Port> Field::port() const {
  const auto number = integer();
  if (!number) return std::nullopt;
  if (is_port_number(*number)) return Port{static_cast<std::uint16_t>(*number)};
  refuse_value(std::to_string(*number), {std::string(kPortRange)});
  return std::nullopt;
}

std::optional<Protocol> Field::protocol() const {
  if (!present()) return Protocol::tcp;
  if (!has_kind(Node::Kind::string)) return std::nullopt;
  for (const Protocol protocol : {Protocol::tcp, Protocol::udp, Protocol::sctp}) {
    if (node_->scalar == name_of(protocol)) return protocol;
  }
  refuse(unsupported(node_->scalar, {"TCP", "UDP", "SCTP"}));
  return std::nullopt;
}

std::optional<IpAddress> Field::address() const {
  const std::string text = string();
  if (text.empty()) return std::nullopt;
  const auto parsed = IpAddress::parse(text);
  if (parsed) return *parsed;
  refuse("Invalid value: " + shown(text) + ": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)");
  return std::nullopt;
}

Labels Field::strings() const {
  Labels out;
  if (!has_kind(Node::Kind::mapping)) return out;
  for (const auto& [key, value] : node_->fields) {
    if (!value.is(Node::Kind::string) && !value.is(Node::Kind::null)) {
      decoding_->refuse(value.line, path_ + "." + key, mismatch("a string", value));
      continue;
    }
    out.emplace(key, value.is(Node::Kind::null) ? std::string() : value.scalar);
  }
  return out;
}

Labels Field::labels() const {
  Labels out = strings();
  for (const auto& [key, value] : out) {
    refuse_value(shown(key), label_key_faults(key));
    refuse_value(shown(value), label_value_faults(value));
  }
  return out;
}

bool Field::is_mapping() const { return !present() || has_kind(Node::Kind::mapping); }

void Field::expect_only(std::initializer_list<std::string_view> names) const {
  if (!present() || !has_kind(Node::Kind::mapping)) return;
  for (const auto& [key, value] : node_->fields) {
    if (std::find(names.begin(), names.end(), key) != names.end()) continue;
    std::string known;
    for (const std::string_view name : names) known.append(known.empty() ? "" : ", ").append(name);
    decoding_->refuse(value.line, (path_.empty() ? "" : path_ + ".") + key, "unknown field " + shown(key) + "; expected one of " + known);
  }
}

void Field::refuse(std::string message) const { decoding_->refuse(line_, path_, std::move(message)); }
void Field::warn(std::string message) const { decoding_->warn(line_, path_, std::move(message)); }

void Field::refuse_value(std::string_view value, const NameFaults& faults) const {
  for (const std::string& fault : faults) refuse("Invalid value: " + std::string(value) + ": " + fault);
}

std::string shown(std::string_view text) {
  constexpr std::size_t kShown = 128;
  return text.size() <= kShown ? "\"" + std::string(text) + "\"" : "\"" + std::string(text.substr(0, kShown)) + "...\"";
}

std::string unsupported(std::string_view value, std::initializer_list<std::string_view> supported) {
  std::string out = "Unsupported value: " + shown(value) + ": supported values: ";
  std::string_view separator;
  for (const std::string_view name : supported) {
    out.append(separator).append("\"").append(name).append("\"");
    separator = ", ";
  }
  return out;
}

bool is_port_number(std::int64_t number) { return number >= 1 && number <= 65535; }

ObjectMeta decode_metadata(const Field& object, Scope scope) {
  const Field metadata = object["metadata"];
  ObjectMeta out;
  if (!metadata.is_mapping()) return out;
  const Field name = metadata["name"];
  out.name = name.string();
  if (out.name.empty()) {
    name.refuse("Required value: an object needs a name");
  } else {
    name.refuse_value(shown(out.name), dns_subdomain_faults(out.name));
  }
  if (scope == Scope::namespaced) {
    const Field ns = metadata["namespace"];
    out.ns = ns.string();
    if (out.ns.empty()) out.ns = "default";
    ns.refuse_value(shown(out.ns), dns_label_faults(out.ns));
  }
  const Field uid = metadata["uid"];
  out.uid = uid.string();
  // The UID becomes a segment of the pod's SPIFFE ID, so it has only what a segment may have.
  if (!out.uid.empty()) uid.refuse_value(shown(out.uid), label_value_faults(out.uid));
  out.generation = metadata["generation"].integer().value_or(0);
  out.labels = metadata["labels"].labels();
  out.deleted = metadata["deletionTimestamp"].present();
  return out;
}

}  // namespace postern
