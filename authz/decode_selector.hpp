// LabelSelector as the Kubernetes API validates it (apimachinery, metav1 validation.ValidateLabelSelector).
#pragma once

#include "authz/decode_common.hpp"
#include "authz/labels.hpp"

namespace postern {

// An absent selector is the empty one. Unknown fields are refused.
LabelSelector decode_selector(const Field& field);

}  // namespace postern
