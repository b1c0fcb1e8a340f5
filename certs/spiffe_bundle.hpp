// A trust bundle as SPIFFE writes it down: a JWK Set (SPIFFE Trust Domain and Bundle section 4).
#pragma once

#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "certs/openssl.hpp"

namespace postern {

// The X.509 authorities of the set: of each key whose `use` is x509-svid the one certificate in `x5c` (X509-SVID section 6). Keys of
// another use or of an unknown type are passed over, as section 4.1.3 says. At most max_authorities, and at least one. Errors name the key.
Result<std::vector<X509Ptr>> parse_spiffe_bundle(std::string_view json);

}  // namespace postern
