// Document -> Pod: only the fields that decisions use; others are left alone.
#pragma once

#include <vector>

#include "authz/cluster.hpp"
#include "authz/decode_common.hpp"
#include "base/result.hpp"

namespace postern {

Pod decode_pod(const Field& object);
Result<Pod> decode_pod(const Document& document, std::vector<Warning>* warnings = nullptr);

}  // namespace postern
