#include "base/ip.hpp"

#include <arpa/inet.h>

#include <algorithm>
#include <cstring>
#include <optional>

namespace postern {
namespace {

using Bytes4 = std::array<std::uint8_t, 4>;
using Bytes16 = std::array<std::uint8_t, 16>;

// What is accepted beyond the strict textual form: `kubernetes` is what the API server takes in a NetworkPolicy's CIDR, which is
// Go's parser of before 1.17 (k8s.io/utils/net ParseCIDRSloppy): any number of leading zeros, always read as decimal.
enum class Form : std::uint8_t { strict, kubernetes };

constexpr Bytes16 kMappedPrefix = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0};

bool is_mapped(const Bytes16& bytes) { return std::equal(kMappedPrefix.begin(), kMappedPrefix.begin() + 12, bytes.begin()); }

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

// Takes one number from the front of `text`; nothing if there is no digit or it is above `max`.
std::optional<unsigned> take_number(std::string_view& text, int base, unsigned max, Form form, std::size_t max_digits) {
  unsigned value = 0;
  std::size_t digits = 0;
  while (digits < text.size()) {
    const int digit = hex_digit(text[digits]);
    if (digit < 0 || digit >= base) break;
    value = value * static_cast<unsigned>(base) + static_cast<unsigned>(digit);
    if (value > max) return std::nullopt;
    ++digits;
  }
  if (digits == 0) return std::nullopt;
  if (form == Form::strict && (digits > max_digits || (base == 10 && digits > 1 && text.front() == '0'))) return std::nullopt;
  text.remove_prefix(digits);
  return value;
}

std::optional<Bytes4> parse_v4(std::string_view text, Form form) {
  Bytes4 out{};
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (i > 0) {
      if (text.empty() || text.front() != '.') return std::nullopt;
      text.remove_prefix(1);
    }
    const auto octet = take_number(text, 10, 255, form, 3);
    if (!octet) return std::nullopt;
    out[i] = static_cast<std::uint8_t>(*octet);
  }
  if (!text.empty()) return std::nullopt;
  return out;
}

// RFC 4291 section 2.2, without zones.
std::optional<Bytes16> parse_v6(std::string_view text, Form form) {
  Bytes16 out{};
  std::size_t used = 0;
  std::optional<std::size_t> gap;  // where "::" stood
  if (text.starts_with("::")) {
    gap = 0;
    text.remove_prefix(2);
  }
  while (!text.empty()) {
    if (used == out.size()) return std::nullopt;
    if (text.find(':') == std::string_view::npos && text.find('.') != std::string_view::npos) {  // IPv4 in the last 32 bits
      if (used > 12 || (!gap && used != 12)) return std::nullopt;
      const auto tail = parse_v4(text, form);
      if (!tail) return std::nullopt;
      std::copy(tail->begin(), tail->end(), out.begin() + static_cast<std::ptrdiff_t>(used));
      used += 4;
      text = {};
      break;
    }
    const auto group = take_number(text, 16, 0xFFFF, form, 4);
    if (!group) return std::nullopt;
    out[used++] = static_cast<std::uint8_t>(*group >> 8U);
    out[used++] = static_cast<std::uint8_t>(*group & 0xFFU);
    if (text.empty()) break;
    if (text.front() != ':' || text.size() == 1) return std::nullopt;
    text.remove_prefix(1);
    if (text.front() == ':') {
      if (gap) return std::nullopt;
      gap = used;
      text.remove_prefix(1);
    }
  }
  if (used == out.size()) return gap ? std::nullopt : std::optional(out);  // "::" stands for at least one group
  if (!gap) return std::nullopt;
  std::rotate(out.begin() + static_cast<std::ptrdiff_t>(*gap), out.begin() + static_cast<std::ptrdiff_t>(used), out.end());
  return out;
}

std::size_t mix(std::uint64_t a, std::uint64_t b) {
  // Multiply and fold: every input bit reaches the low bits that a hash table uses.
  const std::uint64_t x = (a ^ 0x9E3779B97F4A7C15ULL) * 0xBF58476D1CE4E5B9ULL;
  std::uint64_t y = (b + (x ^ (x >> 32U))) * 0x94D049BB133111EBULL;
  y ^= y >> 29U;
  y *= 0xBF58476D1CE4E5B9ULL;
  return static_cast<std::size_t>(y ^ (y >> 32U));
}

}  // namespace

IpAddress IpAddress::v4(std::array<std::uint8_t, 4> bytes) {
  IpAddress out;
  std::copy(bytes.begin(), bytes.end(), out.bytes_.begin());
  return out;
}

IpAddress IpAddress::v6(const std::array<std::uint8_t, 16>& bytes) {
  if (is_mapped(bytes)) return v4({bytes[12], bytes[13], bytes[14], bytes[15]});
  IpAddress out;
  out.bytes_ = bytes;
  out.family_ = IpFamily::v6;
  return out;
}

Result<IpAddress> IpAddress::parse(std::string_view text) {
  if (text.find(':') == std::string_view::npos) {
    if (const auto bytes = parse_v4(text, Form::strict)) return v4(*bytes);
  } else if (const auto bytes = parse_v6(text, Form::strict)) {
    return v6(*bytes);
  }
  return Error{"\"" + std::string(text) + "\" is not an IP address; expected a form such as 10.9.8.7 or 2001:db8::7", {}};
}

bool IpAddress::is_loopback() const {
  if (is_v4()) return bytes_[0] == 127;
  return bytes_ == std::array<std::uint8_t, 16>{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
}

IpAddress IpAddress::masked(unsigned prefix) const {
  IpAddress out = *this;
  for (unsigned bit = prefix; bit < bits();) {
    auto& byte = out.bytes_[bit / 8];
    const unsigned kept = bit % 8;
    byte = static_cast<std::uint8_t>(byte & static_cast<std::uint8_t>(0xFF00U >> kept));
    bit += 8 - kept;
  }
  return out;
}

std::string IpAddress::text() const {
  std::array<char, INET6_ADDRSTRLEN> buffer{};
  return ::inet_ntop(is_v4() ? AF_INET : AF_INET6, bytes_.data(), buffer.data(), buffer.size());
}

Result<Cidr> Cidr::parse(std::string_view text) {
  const Error bad{"\"" + std::string(text) + "\" is not a CIDR block; expected a form such as 10.9.8.0/24 or 2001:db8::/64", {}};
  const std::size_t slash = text.find('/');
  if (slash == std::string_view::npos) return bad;
  const std::string_view address = text.substr(0, slash);
  std::string_view mask = text.substr(slash + 1);
  const auto prefix = take_number(mask, 10, 128, Form::kubernetes, 3);
  if (!prefix || !mask.empty()) return bad;
  if (const auto bytes = parse_v4(address, Form::kubernetes)) {
    if (*prefix > 32) return bad;
    return Cidr(IpAddress::v4(*bytes), *prefix);
  }
  const auto bytes = parse_v6(address, Form::kubernetes);
  if (!bytes) return bad;
  if (!is_mapped(*bytes)) return Cidr(IpAddress::v6(*bytes), *prefix);
  if (*prefix >= 96) return Cidr(IpAddress::v6(*bytes), *prefix - 96);
  // A block that begins with mapped addresses but is wider than them holds IPv6 addresses only, as in Go's IPNet.Contains: masking
  // clears a bit of the ffff, and what is left is no IPv4 address.
  Bytes16 wide = *bytes;
  for (unsigned bit = *prefix; bit < 128; ++bit) wide[bit / 8] = static_cast<std::uint8_t>(wide[bit / 8] & ~(0x80U >> (bit % 8)));
  return Cidr(IpAddress::v6(wide), *prefix);
}

bool Cidr::contains(const IpAddress& address) const {
  if (address.family() != address_.family()) return false;
  const auto& a = address.bytes();
  const auto& b = address_.bytes();
  const std::size_t whole = prefix_ / 8;
  if (std::memcmp(a.data(), b.data(), whole) != 0) return false;
  const unsigned rest = prefix_ % 8;
  return rest == 0 || ((a[whole] ^ b[whole]) >> (8 - rest)) == 0;
}

bool Cidr::contains(const Cidr& other) const { return prefix_ <= other.prefix_ && contains(other.address_); }

std::string Cidr::text() const { return address_.text() + "/" + std::to_string(prefix_); }

std::string SocketAddress::text() const {
  const std::string number = std::to_string(port.number);
  return address.is_v4() ? address.text() + ":" + number : "[" + address.text() + "]:" + number;
}

std::string_view name_of(Protocol protocol) {
  switch (protocol) {
    case Protocol::tcp: return "TCP";
    case Protocol::udp: return "UDP";
    case Protocol::sctp: return "SCTP";
  }
  return "?";
}

std::size_t IpAddressHash::operator()(const IpAddress& a) const noexcept {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
  std::memcpy(&high, a.bytes().data(), 8);
  std::memcpy(&low, a.bytes().data() + 8, 8);
  return mix(high ^ (a.is_v4() ? 0x4ULL : 0x6ULL) << 60U, low);
}

std::size_t SocketAddressHash::operator()(const SocketAddress& a) const noexcept {
  return mix(static_cast<std::uint64_t>(IpAddressHash{}(a.address)), a.port.number);
}

}  // namespace postern
