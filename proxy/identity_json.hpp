// What the admin socket says of this sidecar's identity (GET /identities; docs/admin.md).
#pragma once

#include <optional>
#include <string>

#include "certs/svid_source.hpp"

namespace postern {

struct IdentityFacts {
  std::string source;                      // SvidSource::describe()
  std::optional<SystemTime> next_renewal;  // SvidSource::next_renewal()
  std::string error;                       // of the latest update; empty: it was good
};

// SPIFFE ID, serial, validity, source, next renewal, and the authorities of every trust bundle; no key. `context` null: no SVID yet.
std::string identity_json(const X509Context* context, const IdentityFacts& facts);

}  // namespace postern
