// EndpointSlice from a parsed tree (Kubernetes API: discovery.k8s.io/v1).
#pragma once

#include "authz/cluster.hpp"
#include "authz/decode_common.hpp"
#include "base/document.hpp"
#include "base/result.hpp"

namespace postern {

// Refuses what the API server would refuse of the fields that are used. A slice of host names (addressType FQDN) has no endpoint, and a
// port without a number is left out: kube-proxy sends nothing there either.
EndpointSlice decode_endpoint_slice(const Field& object);
Result<EndpointSlice> decode_endpoint_slice(const Document& document);

}  // namespace postern
