#include <boost/json/basic_parser_impl.hpp>

#include <cstdint>
#include <limits>

#include "base/document_builder.hpp"

namespace postern {
namespace {

using boost::json::error_code;
using boost::json::string_view;

// Feeds the builder with the events of one JSON text; the members are those that boost::json::basic_parser asks for.
struct JsonEvents {
  static constexpr std::size_t max_object_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_array_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_string_size = std::numeric_limits<std::size_t>::max();
  static constexpr std::size_t max_key_size = std::numeric_limits<std::size_t>::max();

  DocumentBuilder& builder;
  TextPosition at;         // of the token being fed
  TextPosition number_at;  // of the latest number: one is only known to be complete when the next token comes
  std::string part;

  bool on_document_begin(error_code&) { return true; }
  bool on_document_end(error_code&) { return true; }
  bool on_array_begin(error_code& ec) { return check(builder.begin(Node::Kind::sequence, at), ec); }
  bool on_array_end(std::size_t, error_code& ec) { return check(builder.end(), ec); }
  bool on_object_begin(error_code& ec) { return check(builder.begin(Node::Kind::mapping, at), ec); }
  bool on_object_end(std::size_t, error_code& ec) { return check(builder.end(), ec); }
  bool on_string_part(string_view s, std::size_t, error_code&) { return keep(s); }
  bool on_key_part(string_view s, std::size_t, error_code&) { return keep(s); }
  bool on_number_part(string_view s, error_code&) { return keep(s); }
  bool on_comment_part(string_view, error_code&) { return true; }
  bool on_comment(string_view, error_code&) { return true; }

  bool on_string(string_view s, std::size_t, error_code& ec) { return scalar(Node::Kind::string, s, at, ec); }
  bool on_key(string_view s, std::size_t, error_code& ec) {
    keep(s);
    return check(builder.key(std::exchange(part, {}), at), ec);
  }
  bool on_int64(std::int64_t i, string_view s, error_code& ec) { return scalar(Node::Kind::integer, s, number_at, ec, i); }
  bool on_uint64(std::uint64_t, string_view s, error_code& ec) { return scalar(Node::Kind::number, s, number_at, ec); }
  bool on_double(double, string_view s, error_code& ec) { return scalar(Node::Kind::number, s, number_at, ec); }
  bool on_bool(bool b, error_code& ec) { return scalar(Node::Kind::boolean, b ? "true" : "false", at, ec, b ? 1 : 0); }
  bool on_null(error_code& ec) { return scalar(Node::Kind::null, "null", at, ec); }

 private:
  bool keep(string_view s) {
    part.append(s.data(), s.size());
    return true;
  }
  bool scalar(Node::Kind kind, string_view s, TextPosition where, error_code& ec, std::int64_t value = 0) {
    keep(s);
    Node node;
    node.kind = kind;
    node.line = where.line;
    node.column = where.column;
    node.scalar = std::exchange(part, {});
    if (kind == Node::Kind::integer) node.integer = value;
    if (kind == Node::Kind::boolean) node.boolean = value != 0;
    return check(builder.value(std::move(node)), ec);
  }
  static bool check(bool ok, error_code& ec) {
    if (!ok) ec = boost::json::error::exception;  // any code: the builder holds the reason
    return ok;
  }
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// The length of the token at the front of `text`: a string up to its closing quote, one punctuation mark, or a run of anything else.
// Only boundaries are found here; whether it is JSON is for the parser to say.
std::size_t token_length(std::string_view text) {
  constexpr std::string_view kMarks = "{}[],:\"";
  if (text.front() != '"') {
    if (kMarks.find(text.front()) != std::string_view::npos) return 1;
    std::size_t length = 1;
    while (length < text.size() && kMarks.find(text[length]) == std::string_view::npos && !is_space(text[length])) ++length;
    return length;
  }
  std::size_t length = 1;
  while (length < text.size() && text[length] != '"') length += text[length] == '\\' ? 2 : 1;
  return std::min(length + 1, text.size());
}

}  // namespace

Result<Document> parse_json(std::string_view text, std::string_view source, const DocumentLimits& limits) {
  if (text.size() > limits.bytes) return Error{"longer than " + std::to_string(limits.bytes) + " bytes", std::string(source)};
  DocumentBuilder builder(source, limits);
  boost::json::parse_options options;
  options.max_depth = limits.depth + 1;  // the builder's limit comes first and has the better message
  boost::json::basic_parser<JsonEvents> parser(options, JsonEvents{builder, {}, {}, {}});
  JsonEvents& events = parser.handler();
  int line = 1;
  std::size_t line_start = 0;
  const auto position = [&](std::size_t offset) { return TextPosition{line, static_cast<int>(offset - line_start) + 1}; };
  const auto failure = [&](const error_code& ec, TextPosition at) {
    return builder.error().message.empty() ? Error{"not JSON: " + ec.message(), where_text(source, at)} : builder.error();
  };
  // The parser does not say where it is, so it is fed token by token.
  for (std::size_t at = 0; at < text.size();) {
    if (is_space(text[at])) {
      if (text[at++] == '\n') {
        ++line;
        line_start = at;
      }
      continue;
    }
    const std::string_view token = text.substr(at, token_length(text.substr(at)));
    if (parser.done()) return Error{"text after the end of the JSON value", where_text(source, position(at))};
    error_code ec;
    // One space keeps apart what white space kept apart; it is the token before it that may be refused.
    if (at > 0 && is_space(text[at - 1])) parser.write_some(true, " ", 1, ec);
    if (ec) return failure(ec, events.at);
    events.at = position(at);
    const bool is_number = token.front() == '-' || (token.front() >= '0' && token.front() <= '9');
    if (is_number) events.number_at = events.at;
    const std::size_t used = parser.write_some(true, token.data(), token.size(), ec);
    if (ec) return failure(ec, position(at + used));
    if (used < token.size()) return Error{"text after the end of the JSON value", where_text(source, position(at + used))};
    at += token.size();
  }
  error_code ec;
  if (!parser.done()) parser.write_some(false, "", 0, ec);
  if (ec) return failure(ec, events.at.line == 0 ? TextPosition{1, 1} : events.at);
  return Document{std::string(source), builder.take()};
}

}  // namespace postern
