// Quantities of the Kubernetes API: 100m, 0.5, 64Mi (k8s.io/apimachinery/pkg/api/resource).
#pragma once

#include <optional>
#include <string_view>

namespace postern {

// The value in units (cores, bytes). Signs and exponents, which no sensible resource has, are refused.
std::optional<double> parse_quantity(std::string_view text);

}  // namespace postern
