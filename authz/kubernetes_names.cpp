#include "authz/kubernetes_names.hpp"

#include <algorithm>

namespace postern {
namespace {

bool is_lower(char c) { return c >= 'a' && c <= 'z'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_lower_or_digit(char c) { return is_lower(c) || is_digit(c); }
bool is_alphanumeric(char c) { return is_lower_or_digit(c) || (c >= 'A' && c <= 'Z'); }

// ([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]
bool is_label_text(std::string_view text) {
  return !text.empty() && is_alphanumeric(text.front()) && is_alphanumeric(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_alphanumeric(c) || c == '-' || c == '_' || c == '.'; });
}

// [a-z0-9]([-a-z0-9]*[a-z0-9])?
bool is_dns_label(std::string_view text) {
  return !text.empty() && is_lower_or_digit(text.front()) && is_lower_or_digit(text.back()) &&
         std::all_of(text.begin(), text.end(), [](char c) { return is_lower_or_digit(c) || c == '-'; });
}

bool is_dns_subdomain(std::string_view text) {
  while (true) {
    const std::size_t dot = text.find('.');
    if (!is_dns_label(text.substr(0, dot))) return false;
    if (dot == std::string_view::npos) return true;
    text.remove_prefix(dot + 1);
  }
}

void check_length(std::string_view text, std::size_t most, std::string_view prefix, NameFaults& faults) {
  if (text.size() > most) faults.push_back(std::string(prefix) + "must be no more than " + std::to_string(most) + " characters");
}

}  // namespace

NameFaults dns_subdomain_faults(std::string_view text) {
  NameFaults faults;
  check_length(text, 253, "", faults);
  if (!is_dns_subdomain(text)) {
    faults.emplace_back(
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with "
        "an alphanumeric character (e.g. 'example.com')");
  }
  return faults;
}

NameFaults dns_label_faults(std::string_view text) {
  NameFaults faults;
  check_length(text, 63, "", faults);
  if (!is_dns_label(text)) {
    faults.emplace_back(
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an "
        "alphanumeric character (e.g. 'my-name', or '123-abc')");
  }
  return faults;
}

NameFaults label_key_faults(std::string_view text) {
  NameFaults faults;
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) {
    const std::string_view prefix = text.substr(0, slash);
    text.remove_prefix(slash + 1);
    if (text.find('/') != std::string_view::npos) {
      return {
          "a qualified name must consist of a name of alphanumeric characters, '-', '_' or '.', with an optional DNS subdomain prefix and "
          "'/' (e.g. 'example.com/MyName')"};
    }
    if (prefix.empty()) {
      faults.emplace_back("prefix part must be non-empty");
    } else {
      for (const std::string& fault : dns_subdomain_faults(prefix)) faults.push_back("prefix part " + fault);
    }
  }
  if (text.empty()) {
    faults.emplace_back("name part must be non-empty");
  } else {
    check_length(text, 63, "name part ", faults);
    if (!is_label_text(text)) {
      faults.emplace_back(
          "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
          "(e.g. 'MyName',  or 'my.name',  or '123-abc')");
    }
  }
  return faults;
}

NameFaults label_value_faults(std::string_view text) {
  NameFaults faults;
  check_length(text, 63, "", faults);
  if (!text.empty() && !is_label_text(text)) {
    faults.emplace_back(
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        "alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345')");
  }
  return faults;
}

NameFaults port_name_faults(std::string_view text) {
  NameFaults faults;
  check_length(text, 15, "", faults);
  if (text.empty() || !std::all_of(text.begin(), text.end(), [](char c) { return is_lower_or_digit(c) || c == '-'; })) {
    faults.emplace_back("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
  }
  if (std::none_of(text.begin(), text.end(), is_lower)) faults.emplace_back("must contain at least one letter (a-z)");
  if (text.find("--") != std::string_view::npos) faults.emplace_back("must not contain consecutive hyphens");
  if (!text.empty() && (text.front() == '-' || text.back() == '-')) faults.emplace_back("must not begin or end with a hyphen");
  return faults;
}

}  // namespace postern
