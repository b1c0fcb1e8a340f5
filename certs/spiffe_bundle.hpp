// A trust bundle as SPIFFE writes it down: a JWK Set (SPIFFE Trust Domain and Bundle section 4).
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

struct SpiffeBundle {
  std::vector<X509Ptr> authorities;                  // at most max_authorities; none: nobody of the domain has a valid X.509-SVID
  std::optional<std::uint64_t> sequence;             // spiffe_sequence, section 4.1.1: of two bundles of a domain, the larger is the newer
  std::optional<std::chrono::seconds> refresh_hint;  // spiffe_refresh_hint, section 4.1.2: how often to look for another
};

// The X.509 authorities of the set: of each key whose `use` is x509-svid the one certificate in `x5c` (X509-SVID section 6). Keys of
// another use or of an unknown type are passed over, as section 4.1.3 says. Errors name the field.
Result<SpiffeBundle> parse_spiffe_bundle(std::string_view json);

}  // namespace postern
