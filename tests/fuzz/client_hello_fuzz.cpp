// The first bytes of a connection: whatever they are, the answer is bounded, asks for progress only, and never contradicts the
// one for fewer of the same bytes.
#include <cstdint>
#include <cstdlib>
#include <span>

#include "proxy/client_hello.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using postern::ClientHelloResult;
  const std::span bytes{data, size};
  const auto whole = postern::parse_client_hello(bytes);
  for (std::size_t seen = 0; seen <= size;) {
    const auto result = postern::parse_client_hello(bytes.first(seen));
    if (result.kind != ClientHelloResult::Kind::need_more) {
      if (result.kind != whole.kind || result.postern_alpn != whole.postern_alpn) std::abort();
      return 0;
    }
    if (result.needed <= seen || result.needed > postern::max_client_hello_bytes) std::abort();
    seen = result.needed;
  }
  if (whole.kind != ClientHelloResult::Kind::need_more) std::abort();
  return 0;
}
