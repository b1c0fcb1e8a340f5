// ask_to_sign: one request for an SVID to any replica of the control plane (docs/identity.md).
#pragma once

#include <boost/asio/awaitable.hpp>
#include <random>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "base/spiffe_id.hpp"
#include "certs/signing_messages.hpp"
#include "certs/trust_bundle.hpp"

namespace postern {

// Tries every address of every replica in random order. Not a byte is sent to a server that `roots` do not prove to be exactly `control`.
// The error is that of the last attempt, with its address.
boost::asio::awaitable<Result<SigningAnswer>> ask_to_sign(std::vector<std::string> addresses, TrustBundle roots, SpiffeId control,
                                                          SigningRequest request, std::mt19937_64& random);

}  // namespace postern
