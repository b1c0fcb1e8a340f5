// Addresses and CIDR blocks: the strict form agrees with inet_pton, and what is printed is read back as the same.
#include <arpa/inet.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/ip.hpp"

namespace {

using namespace postern;

void check_address(const std::string& text) {
  const auto address = IpAddress::parse(text);
  std::array<std::uint8_t, 16> bytes{};
  const bool is_v4 = ::inet_pton(AF_INET, text.c_str(), bytes.data()) == 1;
  const bool is_v6 = !is_v4 && ::inet_pton(AF_INET6, text.c_str(), bytes.data()) == 1;
  const bool expected = (is_v4 || is_v6) && text.find('\0') == std::string::npos;
  if (static_cast<bool>(address) != expected) std::abort();
  if (!address) return;
  if (*address != (is_v4 ? IpAddress::v4({bytes[0], bytes[1], bytes[2], bytes[3]}) : IpAddress::v6(bytes))) std::abort();
  if (IpAddress::parse(address->text()).value() != *address) std::abort();
  if (!Cidr(*address, address->bits()).contains(*address) || !Cidr(*address, 0).contains(*address)) std::abort();
}

void check_cidr(const std::string& text) {
  const auto cidr = Cidr::parse(text);
  if (!cidr) return;
  if (cidr->prefix() > cidr->address().bits() || !cidr->contains(cidr->address()) || !cidr->contains(*cidr)) std::abort();
  if (cidr->address().masked(cidr->prefix()) != cidr->address()) std::abort();
  const auto again = Cidr::parse(cidr->text());
  if (!again || *again != *cidr) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  check_address(text);
  check_cidr(text);
  return 0;
}
