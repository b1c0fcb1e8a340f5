// An answer of a Workload API: fields of one byte for the kind, two for the length, and content (i c k b h of an SVID, n the next one, F
// and f a federated bundle's name and content). Whatever they are, a context comes out only where the SVID is the one it says, with its
// bundle.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "certs/verify.hpp"
#include "certs/workload_update.hpp"

namespace {

using namespace postern;

WorkloadUpdate read(std::string_view bytes) {
  WorkloadUpdate update;
  update.svids.emplace_back();
  while (bytes.size() >= 3) {
    const char kind = bytes[0];
    const std::size_t size = static_cast<std::uint8_t>(bytes[1]) * 256U + static_cast<std::uint8_t>(bytes[2]);
    const std::string content(bytes.substr(3, size));
    bytes.remove_prefix(std::min(bytes.size(), size + 3));
    WorkloadSvid& svid = update.svids.back();
    if (kind == 'i') svid.spiffe_id = content;
    if (kind == 'c') svid.chain = content;
    if (kind == 'k') svid.key = content;
    if (kind == 'b') svid.bundle = content;
    if (kind == 'h') svid.hint = content;
    if (kind == 'n') update.svids.emplace_back();
    if (kind == 'F') update.federated_bundles.emplace_back(content, "");
    if (kind == 'f' && !update.federated_bundles.empty()) update.federated_bundles.back().second = content;
  }
  return update;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const WorkloadUpdate update = read({reinterpret_cast<const char*>(data), size});
  const WorkloadSvid& last = update.svids.back();
  // Within the SVID's own validity, so that no seed grows old.
  SystemTime now;
  if (const auto svid = parse_svid_der(last.chain, last.key)) now = svid->not_before + std::chrono::seconds(1);
  const auto context = context_of(update, {last.spiffe_id, last.hint}, now);
  if (!context) return 0;
  const X509Svid& svid = (*context)->svid;
  if (svid.id.text() != last.spiffe_id || (*context)->bundles.find(svid.id.trust_domain()) == nullptr) std::abort();
  if (check_leaf(svid.chain.front().get(), TlsEnd::both).error != CertificateError::none) std::abort();
  if ((*context)->bundles.size() > update.federated_bundles.size() + 1) std::abort();
  return 0;
}
