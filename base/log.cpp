#include "base/log.hpp"

#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdio>
#include <ctime>

#include "base/utf8.hpp"

namespace postern {
namespace {

void append_escape(std::string& out, unsigned code) {
  constexpr std::string_view kHex = "0123456789abcdef";
  out += "\\u00";
  out += kHex[(code >> 4U) & 0xFU];
  out += kHex[code & 0xFU];
}

// Appends an ASCII character, escaped where JSON or a terminal would take it for more than itself.
void append_ascii(std::string& out, char c) {
  switch (c) {
    case '"': out += "\\\""; return;
    case '\\': out += "\\\\"; return;
    case '\n': out += "\\n"; return;
    case '\r': out += "\\r"; return;
    case '\t': out += "\\t"; return;
    default: break;
  }
  const auto code = static_cast<unsigned char>(c);
  if (code < 0x20 || code == 0x7F) {
    append_escape(out, code);
  } else {
    out += c;
  }
}

// RFC 3339, UTC, milliseconds.
void append_timestamp(std::string& out) {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto millis = std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm utc{};
  ::gmtime_r(&seconds, &utc);
  std::array<char, 64> buffer{};
  const std::size_t length = std::strftime(buffer.data(), buffer.size(), "%Y-%m-%dT%H:%M:%S", &utc);
  const int tail = std::snprintf(buffer.data() + length, buffer.size() - length, ".%03dZ", static_cast<int>(millis));
  out.append(buffer.data(), length + static_cast<std::size_t>(tail));
}

}  // namespace

std::string_view name_of(LogLevel level) {
  switch (level) {
    case LogLevel::debug: return "debug";
    case LogLevel::info: return "info";
    case LogLevel::warning: return "warning";
    case LogLevel::error: return "error";
  }
  return "?";
}

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_length(text, at);
    const std::string_view character = text.substr(at, length);
    at += length == 0 ? 1 : length;
    if (length == 0) {
      out += "\\ufffd";
    } else if (length == 1) {
      append_ascii(out, character[0]);
    } else if (length == 2 && character[0] == '\xC2' && static_cast<unsigned char>(character[1]) < 0xA0) {
      append_escape(out, static_cast<unsigned char>(character[1]));  // C1 controls: some terminals act on them
    } else if (character == "\u2028" || character == "\u2029") {
      out += character == "\u2028" ? "\\u2028" : "\\u2029";  // line ends to some readers
    } else {
      out += character;
    }
  }
  out += '"';
}

void Log::write(LogLevel level, std::string_view event, std::initializer_list<Field> fields) {
  if (level < this->level()) return;
  std::string line = "{\"@timestamp\":\"";
  append_timestamp(line);
  line += "\",\"level\":\"";
  line += name_of(level);
  line += "\",\"event\":";
  append_json_string(line, event);
  for (const auto& [name, value] : fields) {
    line += ',';
    append_json_string(line, name);
    line += ':';
    append_json_string(line, value);
  }
  line += "}\n";
  // One write(2), so that lines of several threads never mix. A full pipe or a closed descriptor loses the line: nowhere to say so.
  [[maybe_unused]] const ::ssize_t written = ::write(fd_, line.data(), line.size());
}

}  // namespace postern
