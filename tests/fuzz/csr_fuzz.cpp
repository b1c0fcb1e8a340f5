// Any bytes as a CSR: what is accepted has a key of an allowed kind.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "certs/csr.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto key = postern::parse_csr({reinterpret_cast<const char*>(data), size});
  if (!key) {
    if (key.error().message.empty()) std::abort();
    return 0;
  }
  const int bits = EVP_PKEY_get_bits(key->get());
  if (EVP_PKEY_get_base_id(key->get()) != EVP_PKEY_EC || (bits != 256 && bits != 384)) std::abort();
  return 0;
}
