// A SPIFFE bundle (JWK Set): bounded work, and what comes out are certificates within the limit.
#include "certs/spiffe_bundle.hpp"

#include <cstdint>
#include <cstdlib>

#include "certs/federated_files.hpp"
#include "certs/svid.hpp"
#include "certs/trust_bundle.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace postern;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto found = parse_spiffe_bundle(text);
  if (found && found->authorities.size() > max_authorities) std::abort();
  const auto bundle = TrustBundle::parse(text, *TrustDomain::parse("partner.example"));
  if (bundle && found && bundle->authorities().size() > found->authorities.size()) std::abort();
  HeldBundle held;
  const auto accepted = accept_bundle(held, text, *TrustDomain::parse("partner.example"));
  if (accepted && held.bundle && held.bundle->authorities().empty()) std::abort();
  if (!accepted && held.bundle) std::abort();
  return 0;
}
