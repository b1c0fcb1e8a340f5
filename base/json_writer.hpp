// JsonWriter: JSON text, written front to back, the same way every time: no white space, fields in the order they are given.
#pragma once

#include <concepts>
#include <string>
#include <string_view>
#include <utility>

namespace postern {

class JsonWriter {
 public:
  JsonWriter& begin_object() { return open('{'); }
  JsonWriter& end_object() { return close('}'); }
  JsonWriter& begin_array() { return open('['); }
  JsonWriter& end_array() { return close(']'); }
  // REQUIRES: inside an object; a value follows.
  JsonWriter& key(std::string_view name);

  // Invalid UTF-8 becomes U+FFFD; control characters are escaped.
  JsonWriter& value(std::string_view text);
  JsonWriter& value(const char* text) { return value(std::string_view(text)); }
  JsonWriter& value(bool truth) { return raw(truth ? "true" : "false"); }
  template <std::integral Number>
  JsonWriter& value(Number number) {
    return raw(std::to_string(number));
  }

  template <class Value>
  JsonWriter& field(std::string_view name, const Value& of_it) {
    return key(name).value(of_it);
  }
  // Only what is not the default is written: absent means false, and "".
  JsonWriter& flag(std::string_view name, bool truth) { return truth ? field(name, true) : *this; }
  JsonWriter& text(std::string_view name, std::string_view content) { return content.empty() ? *this : field(name, content); }

  // REQUIRES: everything that was begun has ended.
  std::string take() { return std::move(out_); }

 private:
  void separate();
  JsonWriter& open(char bracket);
  JsonWriter& close(char bracket);
  JsonWriter& raw(std::string_view text);

  std::string out_;
  bool is_first_ = true;  // nothing stands yet in the innermost object or array, or a key was just written
};

}  // namespace postern
