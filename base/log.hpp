// The program's own log (not the access log): one JSON line per event on stderr, fields and not prose.
#pragma once

#include <atomic>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace postern {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

std::string_view name_of(LogLevel level);

// Appends `text` as a JSON string with its quotes; every control character and invalid UTF-8 byte is escaped, so no
// input can forge a line or a field.
void append_json_string(std::string& out, std::string_view text);

// Thread-safe: each line is one write(2). Not for the connection path.
class Log {
 public:
  using Field = std::pair<std::string_view, std::string_view>;

  explicit Log(LogLevel level = LogLevel::info, int fd = 2) : level_(level), fd_(fd) {}

  void set_level(LogLevel level) { level_.store(level, std::memory_order_relaxed); }
  LogLevel level() const { return level_.load(std::memory_order_relaxed); }
  // {"@timestamp":...,"level":...,"event":...,<fields>}
  void write(LogLevel level, std::string_view event, std::initializer_list<Field> fields = {});
  void debug(std::string_view event, std::initializer_list<Field> fields = {}) { write(LogLevel::debug, event, fields); }
  void info(std::string_view event, std::initializer_list<Field> fields = {}) { write(LogLevel::info, event, fields); }
  void warning(std::string_view event, std::initializer_list<Field> fields = {}) { write(LogLevel::warning, event, fields); }
  void error(std::string_view event, std::initializer_list<Field> fields = {}) { write(LogLevel::error, event, fields); }

 private:
  std::atomic<LogLevel> level_;
  int fd_;
};

}  // namespace postern
