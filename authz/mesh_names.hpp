// How the values of MeshSettings are spelled in a configuration: (name, value), the default first.
#pragma once

#include <array>
#include <string_view>
#include <utility>

#include "authz/snapshot.hpp"

namespace postern {

inline constexpr std::array default_policy_names{std::pair{std::string_view("kubernetes"), DefaultPolicy::kubernetes},
                                                 std::pair{std::string_view("deny"), DefaultPolicy::deny}};
inline constexpr std::array node_traffic_names{std::pair{std::string_view("probes"), NodeTraffic::probes},
                                               std::pair{std::string_view("all"), NodeTraffic::all},
                                               std::pair{std::string_view("none"), NodeTraffic::none}};
inline constexpr std::array mtls_mode_names{std::pair{std::string_view("strict"), MtlsMode::strict},
                                            std::pair{std::string_view("permissive"), MtlsMode::permissive},
                                            std::pair{std::string_view("spiffe"), MtlsMode::spiffe}};

}  // namespace postern
