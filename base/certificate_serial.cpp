#include "base/certificate_serial.hpp"

namespace postern {

Result<std::string> canonical_serial(std::string_view text) {
  constexpr std::size_t longest = 80;  // digits: twice what RFC 5280 allows
  const Error wrong{"expected a certificate's serial number in hexadecimal, such as \"4B2F\", as `openssl x509 -serial` prints it", {}};
  std::string digits;
  for (const char c : text.substr(0, 2 * longest)) {
    if (c == ':') continue;
    const bool is_lower = c >= 'a' && c <= 'f';
    if (!is_lower && !(c >= '0' && c <= '9') && !(c >= 'A' && c <= 'F')) return wrong;
    digits += is_lower ? static_cast<char>(c - 'a' + 'A') : c;
  }
  if (digits.empty() || digits.size() > longest || text.size() > 2 * longest) return wrong;
  if (digits.size() % 2 != 0) digits.insert(digits.begin(), '0');
  while (digits.size() > 2 && digits.starts_with("00")) digits.erase(0, 2);
  return digits;
}

}  // namespace postern
