// WorkloadUpdate: one answer of a SPIFFE Workload API (SPIFFE Workload API section 5.2.1), as bytes, and what a sidecar makes of it.
#pragma once

#include <openssl/crypto.h>

#include <string>
#include <utility>
#include <vector>

#include "base/federated_bundle.hpp"
#include "certs/svid_source.hpp"

namespace postern {

// One X509SVID message. Wiped when it goes: it holds a private key.
struct WorkloadSvid {
  std::string spiffe_id;
  std::string chain;   // DER certificates one after another, leaf first
  std::string key;     // DER PKCS#8, not encrypted
  std::string bundle;  // DER authorities of the SVID's trust domain, one after another
  std::string hint;    // what the operator says it is for; may be empty

  WorkloadSvid() = default;
  WorkloadSvid(WorkloadSvid&&) noexcept = default;
  WorkloadSvid& operator=(WorkloadSvid&&) noexcept = default;
  ~WorkloadSvid() { OPENSSL_cleanse(key.data(), key.size()); }
};

struct WorkloadUpdate {
  std::vector<WorkloadSvid> svids;
  std::vector<std::pair<std::string, std::string>> federated_bundles;  // SPIFFE ID of the trust domain, DER authorities
};

// Which of several SVIDs is this sidecar's. Both empty: the first, as section 5.3 says; both given: both must hold.
struct SvidChoice {
  std::string spiffe_id;
  std::string hint;
};

// What one update may make us hold.
inline constexpr std::size_t max_workload_update_bytes = 4U << 20;
inline constexpr std::size_t max_workload_svids = 64;

// The chosen SVID with the bundle of its trust domain and the federated ones; the other SVIDs are not looked at. A federated bundle that is
// none is an error, too: every message is complete (section 4.4), so that leaving it out would withdraw it.
Result<X509ContextPtr> context_of(const WorkloadUpdate& update, const SvidChoice& choice, SystemTime now);

}  // namespace postern
