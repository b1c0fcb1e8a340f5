// Document -> Service: only the fields that resolving a destination uses; others are left alone.
#pragma once

#include "authz/cluster.hpp"
#include "authz/decode_common.hpp"
#include "base/result.hpp"

namespace postern {

Service decode_service(const Field& object);
Result<Service> decode_service(const Document& document);

}  // namespace postern
