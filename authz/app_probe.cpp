#include "authz/app_probe.hpp"

#include <algorithm>
#include <charconv>

#include "authz/workload.hpp"

namespace postern {
namespace {

constexpr std::string_view kHook = "hook/";
constexpr std::string_view kHttp = "http/";
constexpr std::string_view kHttps = "https/";

bool take(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool is_hex(char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

bool has_malformed_escape(std::string_view text) {
  for (std::size_t i = text.find('%'); i != std::string_view::npos; i = text.find('%', i + 1)) {
    if (i + 2 >= text.size() || !is_hex(text[i + 1]) || !is_hex(text[i + 2])) return true;
  }
  return false;
}

// RFC 3986 section 3.3: what a path or query may hold as it is; '%' is for the caller to judge.
bool is_plain(char c) {
  const bool is_word = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  return is_word || std::string_view("-._~!$&'()*+,;=:@/[]").find(c) != std::string_view::npos;
}

void append_escaped(std::string& out, char c) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  const auto byte = static_cast<unsigned char>(c);
  out += '%';
  out += digits[byte >> 4U];
  out += digits[byte & 15U];
}

}  // namespace

std::string text_of(const AppProbe& probe) {
  std::string out(app_probe_path);
  if (probe.hook) out += kHook;
  if (probe.scheme != AppProbe::Scheme::tcp) out += probe.scheme == AppProbe::Scheme::http ? kHttp : kHttps;
  return out + std::to_string(probe.port.number) + probe.target;
}

std::optional<AppProbe> parse_app_probe(std::string_view path) {
  AppProbe probe;
  if (!take(path, app_probe_path)) return std::nullopt;
  probe.hook = take(path, kHook);
  if (take(path, kHttp)) {
    probe.scheme = AppProbe::Scheme::http;
  } else if (take(path, kHttps)) {
    probe.scheme = AppProbe::Scheme::https;
  }
  const std::size_t end = std::min(path.find('/'), path.size());
  const std::string_view port = path.substr(0, end);
  probe.target = path.substr(end);
  const auto [stop, error] = std::from_chars(port.data(), port.data() + port.size(), probe.port.number);
  if (error != std::errc() || stop != port.data() + port.size() || port.front() == '0') return std::nullopt;
  const bool is_tcp = probe.scheme == AppProbe::Scheme::tcp;
  if (is_tcp != probe.target.empty() || (is_tcp && probe.hook)) return std::nullopt;
  return probe;
}

std::string request_target(std::string_view path) {
  std::string_view rest = path.substr(0, path.find('#'));
  const bool has_control = std::any_of(path.begin(), path.end(), [](char c) { return static_cast<unsigned char>(c) < ' ' || c == '\x7f'; });
  const bool is_literal =
      has_control || has_malformed_escape(rest.substr(0, rest.find('?'))) || has_malformed_escape(path.substr(rest.size()));
  if (is_literal) rest = path;
  std::string out;
  bool in_query = false;
  for (const char c : rest) {
    const bool is_mark = c == '?' && !is_literal;
    const bool is_escape = c == '%' && !is_literal;
    // A query goes out as it is, but for what would end the request line.
    const bool is_query = in_query && c > ' ' && c <= '~' && !is_literal;
    if (is_mark || is_escape || is_query || is_plain(c)) {
      out += c;
    } else {
      append_escaped(out, c);
    }
    in_query = in_query || is_mark;
  }
  return out;
}

}  // namespace postern
