#include "control/watch_decoder.hpp"

#include <algorithm>
#include <charconv>

#include "base/document.hpp"

namespace postern {
namespace {

constexpr std::string_view kSource = "the API server's answer";
constexpr std::size_t kRestBytes = 1U << 20;  // of a list without its items

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

Error malformed(std::string what) { return Error{std::move(what), std::string(kSource)}; }

// Where the string that begins at `at` ends: the index after its closing quote, or npos.
std::size_t string_end(std::string_view text, std::size_t at) {
  for (++at; at < text.size(); ++at) {
    if (text[at] == '\\') {
      ++at;
    } else if (text[at] == '"') {
      return at + 1;
    }
  }
  return std::string_view::npos;
}

// Where the value that begins at `at` ends, going by quotes and brackets alone: whoever parses it finds what else is wrong.
std::size_t value_end(std::string_view text, std::size_t at) {
  std::size_t depth = 0;
  while (at < text.size()) {
    const char c = text[at];
    if (c == '"') {
      at = string_end(text, at);
      if (at == std::string_view::npos) return at;
      if (depth == 0) return at;
      continue;
    }
    if (c == '{' || c == '[') ++depth;
    if (c == '}' || c == ']') {
      if (depth == 0) return at;  // the end of what the value stands in
      if (--depth == 0) return at + 1;
    }
    if (c == ',' && depth == 0) return at;
    ++at;
  }
  return std::string_view::npos;
}

std::size_t skip_space(std::string_view text, std::size_t at) {
  while (at < text.size() && is_space(text[at])) ++at;
  return at;
}

bool type_of(std::string_view name, WatchLine::Type& out) {
  if (name == "\"ADDED\"") return out = WatchLine::Type::added, true;
  if (name == "\"MODIFIED\"") return out = WatchLine::Type::modified, true;
  if (name == "\"DELETED\"") return out = WatchLine::Type::deleted, true;
  if (name == "\"BOOKMARK\"") return out = WatchLine::Type::bookmark, true;
  if (name == "\"ERROR\"") return out = WatchLine::Type::error, true;
  return false;
}

// {"type": ..., "object": ...}, in any order, and nothing else.
Result<WatchLine> decode_line(std::string_view line) {
  WatchLine out;
  bool has_type = false;
  std::size_t at = skip_space(line, 0);
  if (at == line.size() || line[at] != '{') return malformed("a line of the watch is no JSON object");
  at = skip_space(line, at + 1);
  while (at < line.size() && line[at] == '"') {
    const std::size_t key_end = string_end(line, at);
    if (key_end == std::string_view::npos) return malformed("a line of the watch ends within a string");
    const std::string_view key = line.substr(at, key_end - at);
    at = skip_space(line, key_end);
    if (at == line.size() || line[at] != ':') return malformed("a field of a line of the watch has no value");
    at = skip_space(line, at + 1);
    const std::size_t end = value_end(line, at);
    if (end == std::string_view::npos || end == at) return malformed("a field of a line of the watch has no value");
    const std::string_view value = line.substr(at, end - at);
    if (key == "\"type\"" && !has_type) {
      if (!type_of(value, out.type)) return malformed("a line of the watch has an unknown type: " + std::string(value.substr(0, 40)));
      has_type = true;
    } else if (key == "\"object\"" && out.object.empty()) {
      out.object = value;
    } else {
      return malformed("a line of the watch has the unexpected field " + std::string(key.substr(0, 40)));
    }
    at = skip_space(line, end);
    if (at == line.size() || line[at] != ',') break;
    at = skip_space(line, at + 1);
  }
  if (at == line.size() || line[at] != '}' || skip_space(line, at + 1) != line.size())
    return malformed("a line of the watch is no JSON object");
  if (!has_type || out.object.empty()) return malformed("a line of the watch lacks its type or object");
  return out;
}

}  // namespace

Result<void> WatchDecoder::feed(std::string_view bytes, std::vector<WatchLine>& out) {
  while (!bytes.empty()) {
    const std::size_t end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    if (line_.size() + part.size() > line_bytes_max_) {
      return malformed("a line of the watch is longer than " + std::to_string(line_bytes_max_) + " bytes");
    }
    line_ += part;
    if (end == std::string_view::npos) return {};
    bytes.remove_prefix(end + 1);
    if (skip_space(line_, 0) < line_.size()) {
      auto line = decode_line(line_);
      if (!line) return line.error();
      out.push_back(std::move(*line));
    }
    line_.clear();
  }
  if (line_.capacity() > (1U << 20)) line_.shrink_to_fit();  // one long object shall not stay for ever
  return {};
}

Result<void> ListDecoder::feed(std::string_view bytes) {
  for (std::size_t at = 0; at < bytes.size(); ++at) {
    if (in_string_ && !escaped_) {
      // Most of an answer is text: take it up to the next character that means something.
      const std::size_t end = std::min(bytes.find_first_of("\"\\", at), bytes.size());
      if (end > at) {
        std::string& into = state_ == State::item ? item_ : rest_;
        into += bytes.substr(at, end - at);
        if (into.size() > (state_ == State::item ? item_bytes_max_ : kRestBytes)) return malformed("an object of the list is too long");
        if (end == bytes.size()) return {};
        at = end;
      }
    }
    const auto done = step(bytes[at]);
    if (!done) return done;
  }
  return {};
}

Result<void> ListDecoder::step(char c) {
  if (state_ == State::done) return is_space(c) ? Result<void>() : malformed("text after the end of the list");
  std::string& into = state_ == State::item ? item_ : rest_;
  if (into.size() >= (state_ == State::item ? item_bytes_max_ : kRestBytes)) return malformed("an object of the list is too long");

  if (in_string_) {
    into += c;
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      if (state_ == State::outside && depth_ == 1 && expects_key_) {
        key_ = rest_.substr(key_begin_);
        expects_key_ = false;
      }
    }
    return {};
  }

  switch (state_) {
    case State::start:
      if (is_space(c)) return {};
      if (c != '{') return malformed("the list is no JSON object");
      rest_ += c;
      depth_ = 1;
      expects_key_ = true;
      state_ = State::outside;
      return {};
    case State::outside:
      if (depth_ == 1 && c == '[' && key_ == "\"items\"") {
        if (had_items_) return malformed("the list has its items twice");
        had_items_ = true;
        rest_ += "null";  // what stands in the items' place
        state_ = State::items;
        return {};
      }
      rest_ += c;
      if (c == '"') {
        in_string_ = true;
        key_begin_ = rest_.size() - 1;
      } else if (c == '{' || c == '[') {
        ++depth_;
      } else if (c == '}' || c == ']') {
        if (--depth_ == 0) state_ = State::done;
      } else if (c == ',' && depth_ == 1) {
        expects_key_ = true;
      }
      return {};
    case State::items:  // after '[' or ','
      if (is_space(c)) return {};
      if (c == ']' && !after_comma_) {
        state_ = State::outside;
        key_.clear();
        return {};
      }
      if (c != '{') return malformed("an item of the list is no JSON object");
      item_ = c;
      item_depth_ = 1;
      state_ = State::item;
      return {};
    case State::item:
      item_ += c;
      if (c == '"') {
        in_string_ = true;
      } else if (c == '{' || c == '[') {
        ++item_depth_;
      } else if ((c == '}' || c == ']') && --item_depth_ == 0) {
        state_ = State::between;
        return on_item_(item_);
      }
      return {};
    case State::between:
      if (is_space(c)) return {};
      if (c == ',') {
        state_ = State::items;
        after_comma_ = true;
      } else if (c == ']') {
        state_ = State::outside;
        key_.clear();
      } else {
        return malformed("the items of the list are not separated by commas");
      }
      return {};
    case State::done: break;  // above
  }
  return {};
}

Result<ListDecoder::End> ListDecoder::finish() {
  if (state_ != State::done) return malformed("the list ends before it is complete");
  const auto list = parse_json(rest_, kSource);
  if (!list) return list.error();
  const Node* items = list->root.find("items");
  if (items == nullptr || !items->is(Node::Kind::null)) return malformed("the list has no items field");
  const Node* metadata = list->root.find("metadata");
  const Node* version = metadata == nullptr ? nullptr : metadata->find("resourceVersion");
  const Node* token = metadata == nullptr ? nullptr : metadata->find("continue");
  End out;
  if (version == nullptr || !version->is(Node::Kind::string)) return malformed("the list has no metadata.resourceVersion");
  const char* end = version->scalar.data() + version->scalar.size();
  if (const auto [at, error] = std::from_chars(version->scalar.data(), end, out.version); error != std::errc() || at != end) {
    return malformed("the list's metadata.resourceVersion is no number: " + version->scalar.substr(0, 40));
  }
  if (token != nullptr && token->is(Node::Kind::string)) out.continue_token = token->scalar;
  return out;
}

ApiStatus decode_status(std::string_view json) {
  ApiStatus out;
  const auto status = parse_json(json, kSource);
  if (!status) return out;
  if (const Node* code = status->root.find("code");
      code != nullptr && code->is(Node::Kind::integer) && code->integer > 0 && code->integer < 1000) {
    out.code = static_cast<unsigned>(code->integer);
  }
  if (const Node* reason = status->root.find("reason"); reason != nullptr && reason->is(Node::Kind::string)) out.reason = reason->scalar;
  if (const Node* message = status->root.find("message"); message != nullptr && message->is(Node::Kind::string))
    out.message = message->scalar;
  return out;
}

}  // namespace postern
