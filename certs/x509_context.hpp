// What every SvidSource ends with: an SVID and its bundles, checked as a peer would.
#pragma once

#include <string_view>

#include "certs/svid_source.hpp"

namespace postern {

// Half of a rotation, or an SVID out of its time, must not replace one that works: the SVID must verify against its own trust domain's
// bundle at `now`. `svid_from` and `bundle_from` are where they came from, for the error.
Result<X509ContextPtr> make_x509_context(X509Svid svid, TrustBundleSet bundles, SystemTime now, std::string_view svid_from,
                                         std::string_view bundle_from);

}  // namespace postern
