#include "authz/stream_messages.hpp"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>
#include <utility>

#include "authz/decode_common.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

constexpr std::size_t reason_bytes = 4096;  // of a Nack or an answer: for people
constexpr std::size_t mark_kinds = 64;

constexpr DocumentLimits sidecar_limits{
    .bytes = sidecar_message_bytes, .nodes = 100'000, .depth = 4, .documents = 1, .scalar_bytes = 16U << 10};
constexpr DocumentLimits control_limits{
    .bytes = control_message_bytes, .nodes = 2'000'000, .depth = 6, .documents = 1, .scalar_bytes = 32U << 20};
// A 5,000-member peer set is 150 KB and 5,000 nodes; the allow list of a 1 MB policy some 3 MB.
constexpr DocumentLimits body_limits{.bytes = 32U << 20, .nodes = 2'000'000, .depth = 12, .documents = 1, .scalar_bytes = 16U << 10};

void write(JsonWriter& json, const Mark& mark) {
  json.key("mark").begin_object().field("epoch", mark.epoch).key("versions").begin_object();
  for (const auto& [kind, version] : mark.versions) json.field(kind, version);
  json.end_object().end_object();
}

void write(JsonWriter& json, std::string_view name, const std::vector<std::string>& items) {
  json.key(name).begin_array();
  for (const std::string& item : items) json.value(item);
  json.end_array();
}

void write(JsonWriter& json, const ResourceDelta& delta) {
  json.begin_object().field("name", delta.name).field("base", delta.base).field("hash", delta.hash);
  json.key("edits").begin_array();
  for (const TextEdit& edit : delta.edits) {
    json.begin_object().field("at", edit.at).field("remove", edit.removed).text("insert", edit.inserted).end_object();
  }
  json.end_array().end_object();
}

// Writes the fields of one message after its type.
struct Fields {
  JsonWriter& json;

  JsonWriter& type(std::string_view name) const { return json.field("type", name); }

  void operator()(const Hello& hello) const {
    type("hello").field("version", hello.version);
    write(json, hello.mark);
    json.key("have").begin_object();
    for (const auto& [name, hash] : hello.have) json.field(name, hash);
    json.end_object();
  }
  void operator()(const Ack& ack) const { type("ack").field("nonce", ack.nonce); }
  void operator()(const Nack& nack) const {
    type("nack").field("nonce", nack.nonce).field("reason", std::string_view(nack.reason).substr(0, reason_bytes));
  }
  void operator()(const Lookup& lookup) const { type("lookup").field("id", lookup.id).field("address", lookup.address.text()); }
  void operator()(const Forget& forget) const {
    type("forget");
    write(json, "names", forget.names);
  }
  void operator()(const Update& update) const {
    type("update").field("nonce", update.nonce);
    write(json, update.mark);
    json.key("resources").begin_array();
    for (const ResourcePtr& one : update.resources) {
      json.begin_object().field("name", one->name).field("hash", one->hash).field("body", one->body).end_object();
    }
    json.end_array();
    if (!update.deltas.empty()) {
      json.key("deltas").begin_array();
      for (const ResourceDelta& one : update.deltas) write(json, one);
      json.end_array();
    }
    write(json, "removed", update.removed);
  }
  void operator()(const LookupAnswer& answer) const {
    type("answer").field("id", answer.id).field("known", answer.known);
    json.text("error", std::string_view(answer.error).substr(0, reason_bytes));
  }
  void operator()(const NotReady& not_ready) const {
    type("not-ready").field("reason", std::string_view(not_ready.reason).substr(0, reason_bytes));
  }
};

template <class Message>
std::string encode_message(const Message& message) {
  JsonWriter json;
  json.begin_object();
  std::visit(Fields{json}, message);
  return json.end_object().take();
}

// Any 64-bit number without a sign; the parser calls those from 2^63 up a "number".
std::uint64_t unsigned_of(const Field& field) {
  std::uint64_t value = 0;
  if (field.present()) {
    const std::string& text = field.node().scalar;
    const bool is_numeric = field.node().is(Node::Kind::integer) || field.node().is(Node::Kind::number);
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (is_numeric && error == std::errc() && end == text.data() + text.size()) return value;
  }
  field.refuse("expected a number from 0 to 18446744073709551615");
  return 0;
}

// A text that is there, is not empty, and is no longer than `most`.
std::string bounded(const Field& field, std::size_t most) {
  std::string text = field.string();
  if (text.empty()) field.refuse("Required value");
  if (text.size() > most) field.refuse("longer than " + std::to_string(most) + " bytes");
  return text;
}

// As bounded(), but may be empty.
std::string bounded_or_empty(const Field& field, std::size_t most) { return field.string().empty() ? std::string() : bounded(field, most); }

// Calls `use(name, field)` for each field of a mapping that must be there.
template <class Use>
void for_each_field(const Field& mapping, std::size_t name_bytes, const Use& use) {
  if (!mapping.present()) mapping.refuse("Required value");
  if (!mapping.present() || !mapping.is_mapping()) return;
  for (const auto& [name, node] : mapping.node().fields) {
    if (name.empty() || name.size() > name_bytes) mapping.refuse("Invalid value: " + shown(name) + ": empty, or too long a name");
    use(name, Field(mapping.decoding(), node, mapping.path() + "." + name));
  }
}

Mark decode_mark(const Field& field) {
  Mark mark;
  field.expect_only({"epoch", "versions"});
  mark.epoch = bounded_or_empty(field["epoch"], 256);
  for_each_field(field["versions"], 64,
                 [&](const std::string& kind, const Field& version) { mark.versions.emplace(kind, unsigned_of(version)); });
  if (mark.versions.size() > mark_kinds) field["versions"].refuse("more than " + std::to_string(mark_kinds) + " kinds");
  return mark;
}

std::vector<std::string> decode_names(const Field& field) {
  std::vector<std::string> names;
  for (const Field& item : field.items()) names.push_back(bounded(item, resource_name_bytes));
  return names;
}

Hello decode_hello(const Field& message) {
  message.expect_only({"type", "version", "mark", "have"});
  Hello hello{.version = bounded_or_empty(message["version"], 256), .mark = decode_mark(message["mark"]), .have = {}};
  for_each_field(message["have"], resource_name_bytes,
                 [&](const std::string& name, const Field& hash) { hello.have.emplace(name, bounded(hash, resource_hash_bytes)); });
  return hello;
}

Nack decode_nack(const Field& message) {
  message.expect_only({"type", "nonce", "reason"});
  return {.nonce = unsigned_of(message["nonce"]), .reason = bounded_or_empty(message["reason"], 3 * reason_bytes)};
}

Lookup decode_lookup(const Field& message) {
  message.expect_only({"type", "id", "address"});
  const Field address = message["address"];
  if (address.string().empty()) address.refuse("Required value: an IP address");
  return {.id = unsigned_of(message["id"]), .address = address.address().value_or(IpAddress())};
}

ResourceDelta decode_delta(const Field& field) {
  field.expect_only({"name", "base", "hash", "edits"});
  ResourceDelta delta;
  delta.name = bounded(field["name"], resource_name_bytes);
  delta.base = bounded(field["base"], resource_hash_bytes);
  delta.hash = bounded(field["hash"], resource_hash_bytes);
  for (const Field& item : field["edits"].items()) {
    item.expect_only({"at", "remove", "insert"});
    delta.edits.push_back({unsigned_of(item["at"]), unsigned_of(item["remove"]), bounded_or_empty(item["insert"], body_limits.bytes)});
  }
  if (delta.edits.size() > resource_edits_max) field["edits"].refuse("more than " + std::to_string(resource_edits_max) + " edits");
  return delta;
}

Update decode_update(const Field& message) {
  message.expect_only({"type", "nonce", "mark", "resources", "deltas", "removed"});
  Update update{.nonce = unsigned_of(message["nonce"]), .mark = decode_mark(message["mark"]), .resources = {}, .removed = {}};
  std::set<std::string_view> names;
  for (const Field& item : message["resources"].items()) {
    item.expect_only({"name", "hash", "body"});
    auto resource = std::make_shared<Resource>();
    resource->name = bounded(item["name"], resource_name_bytes);
    resource->hash = bounded(item["hash"], resource_hash_bytes);
    resource->body = bounded(item["body"], body_limits.bytes);
    if (!names.insert(resource->name).second) item["name"].refuse(shown(resource->name) + " is there twice");
    update.resources.push_back(std::move(resource));
  }
  for (const Field& item : message["deltas"].items()) update.deltas.push_back(decode_delta(item));
  for (const ResourceDelta& delta : update.deltas) {
    if (!names.insert(delta.name).second) message["deltas"].refuse(shown(delta.name) + " is there twice, or sent whole as well");
  }
  update.removed = decode_names(message["removed"]);
  for (const std::string& name : update.removed) {
    if (!names.insert(name).second) message["removed"].refuse(shown(name) + " is there twice, or sent as well");
  }
  return update;
}

LookupAnswer decode_answer(const Field& message) {
  message.expect_only({"type", "id", "known", "error"});
  return {
      .id = unsigned_of(message["id"]), .known = message["known"].boolean(), .error = bounded_or_empty(message["error"], 3 * reason_bytes)};
}

std::optional<SidecarMessage> decode_sidecar(const Field& message, const std::string& type) {
  if (type == "hello") return decode_hello(message);
  if (type == "nack") return decode_nack(message);
  if (type == "lookup") return decode_lookup(message);
  if (type == "ack") {
    message.expect_only({"type", "nonce"});
    return Ack{.nonce = unsigned_of(message["nonce"])};
  }
  if (type == "forget") {
    message.expect_only({"type", "names"});
    return Forget{.names = decode_names(message["names"])};
  }
  message["type"].refuse(unsupported(type, {"hello", "ack", "nack", "lookup", "forget"}));
  return std::nullopt;
}

std::optional<ControlMessage> decode_control(const Field& message, const std::string& type) {
  if (type == "update") return decode_update(message);
  if (type == "answer") return decode_answer(message);
  if (type == "not-ready") {
    message.expect_only({"type", "reason"});
    return NotReady{.reason = bounded_or_empty(message["reason"], 3 * reason_bytes)};
  }
  message["type"].refuse(unsupported(type, {"update", "answer", "not-ready"}));
  return std::nullopt;
}

template <class Message>
Result<Message> decode_message(std::string_view text, const DocumentLimits& limits,
                               std::optional<Message> (*decode)(const Field&, const std::string&)) {
  auto document = parse_json(text, "message", limits);
  if (!document) return document.error();
  Decoding decoding("message");
  const Field message(decoding, document->root);
  if (!document->root.is(Node::Kind::mapping))
    return Error{"expected a mapping, found " + std::string(name_of(document->root.kind)), "message"};
  std::optional<Message> decoded = decode(message, message["type"].string());
  if (!decoding.ok()) return decoding.error();
  return *std::move(decoded);
}

}  // namespace

bool Mark::reaches(const Mark& other) const {
  return std::all_of(other.versions.begin(), other.versions.end(), [this](const auto& wanted) {
    const auto own = versions.find(wanted.first);
    return wanted.second == 0 || (own != versions.end() && own->second >= wanted.second);
  });
}

void Mark::advance_to(const Mark& other) {
  if (epoch != other.epoch) {
    *this = other;
    return;
  }
  for (const auto& [kind, version] : other.versions) {
    auto& own = versions[kind];
    own = std::max(own, version);
  }
}

std::string encode(const SidecarMessage& message) { return encode_message(message); }
std::string encode(const ControlMessage& message) { return encode_message(message); }

Result<SidecarMessage> decode_sidecar_message(std::string_view text) {
  return decode_message<SidecarMessage>(text, sidecar_limits, decode_sidecar);
}

Result<ControlMessage> decode_control_message(std::string_view text) {
  return decode_message<ControlMessage>(text, control_limits, decode_control);
}

Result<std::string> edited_body(std::string base, const ResourceDelta& delta) {
  auto body = edited(std::move(base), delta.edits, body_limits.bytes);
  if (!body) return Error{body.error().message, delta.name};
  return body;
}

Result<void> decode_into(SnapshotParts& parts, const Resource& resource) {
  const auto document = parse_json(resource.body, resource.name, body_limits);
  if (!document) return document.error();
  return decode_into(parts, resource.name, document->root);
}

}  // namespace postern
