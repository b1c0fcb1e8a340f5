#include "cli/json_text.hpp"

#include <algorithm>
#include <string_view>
#include <vector>

#include "base/log.hpp"

namespace postern::cli {
namespace {

using Kind = Node::Kind;

std::string scalar_text(const Node& node) {
  std::string out;
  if (node.is(Kind::null)) return "null";
  if (!node.is(Kind::string)) return node.scalar;
  append_json_string(out, node.scalar);
  return out;
}

// On one line.
std::string compact(const Node& node) {
  if (!node.is(Kind::mapping) && !node.is(Kind::sequence)) return scalar_text(node);
  const bool mapping = node.is(Kind::mapping);
  std::string out(1, mapping ? '{' : '[');
  for (const Node& item : node.items) out.append(out.size() == 1 ? "" : ", ").append(compact(item));
  for (const auto& [key, value] : node.fields) {
    out.append(out.size() == 1 ? "" : ", ");
    append_json_string(out, key);
    out.append(": ").append(compact(value));
  }
  out += mapping ? '}' : ']';
  return out;
}

void indent_into(std::string& out, const Node& node, std::size_t depth) {
  const bool mapping = node.is(Kind::mapping);
  const std::size_t count = mapping ? node.fields.size() : node.items.size();
  if (count == 0) {
    out += compact(node);
    return;
  }
  out += mapping ? '{' : '[';
  for (std::size_t i = 0; i < count; ++i) {
    out.append(i == 0 ? "\n" : ",\n").append(2 * (depth + 1), ' ');
    if (mapping) {
      append_json_string(out, node.fields[i].first);
      out += ": ";
    }
    indent_into(out, mapping ? node.fields[i].second : node.items[i], depth + 1);
  }
  out.append("\n").append(2 * depth, ' ');
  out += mapping ? '}' : ']';
}

bool is_table(const Node& node) {
  return node.is(Kind::sequence) && !node.items.empty() &&
         std::all_of(node.items.begin(), node.items.end(), [](const Node& item) { return item.is(Kind::mapping); });
}

// Without the quotes of a JSON string, but with its escapes.
std::string cell(const Node* node) {
  if (node == nullptr || node->is(Kind::null)) return "-";
  std::string text = compact(*node);
  if (node->is(Kind::string)) text = text.substr(1, text.size() - 2);
  return text.empty() ? "-" : text;
}

std::string escaped(std::string_view key) {
  std::string out;
  append_json_string(out, key);
  return out.substr(1, out.size() - 2);
}

std::string table(const Node& list) {
  std::vector<std::string_view> columns;
  for (const Node& item : list.items) {
    for (const auto& [key, value] : item.fields) {
      if (std::find(columns.begin(), columns.end(), key) == columns.end()) columns.push_back(key);
    }
  }
  std::vector<std::vector<std::string>> rows(1);
  for (const std::string_view column : columns) rows[0].push_back(escaped(column));
  for (const Node& item : list.items) {
    auto& row = rows.emplace_back();
    for (const std::string_view column : columns) row.push_back(cell(item.find(column)));
  }
  std::vector<std::size_t> widths(columns.size(), 0);
  for (const auto& row : rows) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (std::size_t i = 0; i < row.size(); ++i) line.append(row[i]).append(widths[i] + 2 - row[i].size(), ' ');
    out.append(line, 0, line.find_last_not_of(' ') + 1).append("\n");
  }
  return out;
}

}  // namespace

std::string indented(const Node& node) {
  std::string out;
  indent_into(out, node, 0);
  return out + "\n";
}

std::string tabulated(const Node& node) {
  if (is_table(node)) return table(node);
  if (node.is(Kind::sequence) && node.items.empty()) return "none\n";
  if (!node.is(Kind::mapping)) return compact(node) + "\n";
  std::string out;
  for (const auto& [key, value] : node.fields) {
    if (!is_table(value)) out.append(escaped(key)).append(": ").append(cell(&value)).append("\n");
  }
  for (const auto& [key, value] : node.fields) {
    if (is_table(value)) out.append(out.empty() ? "" : "\n").append(escaped(key)).append(":\n").append(table(value));
  }
  return out;
}

}  // namespace postern::cli
