// A SPIFFE bundle (JWK Set): bounded work, and what comes out are certificates within the limit.
#include "certs/spiffe_bundle.hpp"

#include <cstdint>
#include <cstdlib>

#include "certs/svid.hpp"
#include "certs/trust_bundle.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto found = parse_spiffe_bundle(text);
  if (found && (found->empty() || found->size() > max_authorities)) std::abort();
  const auto bundle = TrustBundle::parse(text, *TrustDomain::parse("partner.example"));
  if (bundle && found && bundle->authorities().size() > found->size()) std::abort();
  return 0;
}
