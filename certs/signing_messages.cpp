#include "certs/signing_messages.hpp"

#include <optional>

#include "base/document.hpp"
#include "base/json_writer.hpp"

namespace postern {
namespace {

constexpr DocumentLimits limits{.bytes = signing_answer_bytes, .nodes = 64, .depth = 3, .documents = 1, .scalar_bytes = 128U << 10};

// The fields of one object; what was not asked for is refused at the end.
class Fields {
 public:
  explicit Fields(const Node& node) : node_(node) {
    if (!node.is(Node::Kind::mapping)) error_ = Error{"expected an object", {}};
  }

  std::string text(std::string_view name) {
    const Node* field = take(name);
    if (field != nullptr && field->is(Node::Kind::string) && !field->scalar.empty()) return field->scalar;
    refuse(name, "expected a text that is not empty");
    return {};
  }
  std::uint64_t number(std::string_view name) {
    const Node* field = take(name);
    if (field != nullptr && field->is(Node::Kind::integer) && field->integer >= 0) return static_cast<std::uint64_t>(field->integer);
    refuse(name, "expected a number from 0");
    return 0;
  }
  std::optional<Error> error() {
    if (!error_ && taken_ != node_.fields.size()) error_ = Error{"has a field that is not known here", {}};
    return error_;
  }

 private:
  const Node* take(std::string_view name) {
    const Node* field = node_.find(name);
    if (field != nullptr) ++taken_;
    return field;
  }
  void refuse(std::string_view name, std::string_view what) {
    if (!error_) error_ = Error{std::string(what), std::string(name)};
  }

  const Node& node_;
  std::size_t taken_ = 0;
  std::optional<Error> error_;
};

}  // namespace

std::string encode(const SigningRequest& request) {
  JsonWriter json;
  json.begin_object().field("token", request.token).field("csr", request.csr).field("bundleSequence", request.bundle_sequence);
  return json.end_object().take();
}

std::string encode(const SigningAnswer& answer) {
  JsonWriter json;
  json.begin_object().field("chain", answer.chain).field("bundle", answer.bundle.roots).field("bundleSequence", answer.bundle.sequence);
  return json.end_object().take();
}

std::string encode_signing_error(std::string_view message) {
  JsonWriter json;
  return json.begin_object().field("error", message).end_object().take();
}

Result<SigningRequest> decode_signing_request(std::string_view text) {
  if (text.size() > signing_request_bytes) return Error{"longer than " + std::to_string(signing_request_bytes) + " bytes", {}};
  const auto document = parse_json(text, "request", limits);
  if (!document) return document.error();
  Fields fields(document->root);
  SigningRequest request;
  request.token = fields.text("token");
  request.csr = fields.text("csr");
  request.bundle_sequence = fields.number("bundleSequence");
  if (auto error = fields.error()) return *error;
  return request;
}

Result<SigningAnswer> decode_signing_answer(std::string_view text) {
  const auto document = parse_json(text, "answer", limits);
  if (!document) return document.error();
  Fields fields(document->root);
  SigningAnswer answer;
  answer.chain = fields.text("chain");
  answer.bundle.roots = fields.text("bundle");
  answer.bundle.sequence = fields.number("bundleSequence");
  if (auto error = fields.error()) return *error;
  return answer;
}

std::string signing_error_of(std::string_view text) {
  const auto document = parse_json(text.substr(0, signing_answer_bytes), "answer", limits);
  if (!document) return {};
  const Node* error = document->root.find("error");
  return error != nullptr && error->is(Node::Kind::string) ? error->scalar.substr(0, 1024) : std::string();
}

}  // namespace postern
