// FederatedBundle: where the trust bundle of another trust domain comes from: a file, or a bundle endpoint (SPIFFE Federation section 5.1).
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/document.hpp"
#include "base/https_url.hpp"
#include "base/result.hpp"
#include "base/spiffe_id.hpp"

namespace postern {

inline constexpr std::size_t max_federated_bundles = 64;  // trust domains besides our own

struct FederatedBundle {
  // How the endpoint proves itself: SPIFFE Federation sections 5.2.1 and 5.2.2.
  enum class Profile : std::uint8_t { https_web, https_spiffe };

  TrustDomain domain;
  std::string file;      // PEM or SPIFFE's JSON; or `endpoint`
  std::string endpoint;  // as it was written; empty: from the file
  HttpsUrl url;
  Profile profile = Profile::https_web;
  std::string endpoint_roots;   // https_web: a file of PEM certificates instead of the system's authorities; empty: the system's
  SpiffeId endpoint_id;         // https_spiffe: whose X.509-SVID the endpoint must have
  std::string endpoint_bundle;  // https_spiffe: a file with the bundle of the endpoint's own trust domain, for the first retrieval at least

  bool operator==(const FederatedBundle&) const = default;
};
std::string_view name_of(FederatedBundle::Profile profile);

// None may be of our own trust domain, whose bundle comes with the SVID. `field`: what the list is called in the configuration.
Result<void> check_federated_bundles(const std::vector<FederatedBundle>& bundles, const TrustDomain& own, std::string_view field);

}  // namespace postern

namespace postern::config_value {

// A list of mappings: trustDomain and bundle, or trustDomain, endpoint and what its profile needs.
struct FederatedBundleList {
  static Result<std::vector<FederatedBundle>> read(const Node& node);
  static std::string print(const std::vector<FederatedBundle>& value);
  static std::string describe() { return "list of trust domains with their bundles"; }
};

// The same, from files only.
struct FederatedFileList {
  static Result<std::vector<FederatedBundle>> read(const Node& node);
  static std::string print(const std::vector<FederatedBundle>& value) { return FederatedBundleList::print(value); }
  static std::string describe() { return "list of trust domains with their bundle files"; }
};

}  // namespace postern::config_value
