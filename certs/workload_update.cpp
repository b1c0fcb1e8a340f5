#include "certs/workload_update.hpp"

#include <algorithm>

#include "certs/x509_context.hpp"

namespace postern {
namespace {

constexpr std::string_view source_name = "Workload API";

Error at(std::string what, std::string where) { return Error{std::move(what), std::string(source_name) + ": " + std::move(where)}; }

std::string ids_of(const WorkloadUpdate& update) {
  std::string text;
  for (const WorkloadSvid& svid : update.svids) {
    text.append(text.empty() ? "" : ", ").append(svid.spiffe_id);
    if (!svid.hint.empty()) text.append(" (hint ").append(svid.hint).append(")");
  }
  return text;
}

Result<const WorkloadSvid*> choose(const WorkloadUpdate& update, const SvidChoice& choice) {
  if (update.svids.empty()) return at("an answer without an SVID", "svids");
  if (update.svids.size() > max_workload_svids) {
    return at(std::to_string(update.svids.size()) + " SVIDs; at most " + std::to_string(max_workload_svids) + " are read", "svids");
  }
  const auto wanted = [&](const WorkloadSvid& svid) {
    return (choice.spiffe_id.empty() || svid.spiffe_id == choice.spiffe_id) && (choice.hint.empty() || svid.hint == choice.hint);
  };
  // Section 5.2.1: of several with the same hint, the first.
  const auto found = std::find_if(update.svids.begin(), update.svids.end(), wanted);
  if (found != update.svids.end()) return &*found;
  return at("none of the SVIDs is the one that identity.workloadApi asks for" +
                (choice.spiffe_id.empty() ? std::string() : " (spiffeId " + choice.spiffe_id + ")") +
                (choice.hint.empty() ? std::string() : " (hint " + choice.hint + ")") + "; there are: " + ids_of(update),
            "svids");
}

}  // namespace

Result<X509ContextPtr> context_of(const WorkloadUpdate& update, const SvidChoice& choice, SystemTime now) {
  const auto chosen = choose(update, choice);
  if (!chosen) return chosen.error();
  const WorkloadSvid& given = **chosen;

  auto svid = parse_svid_der(given.chain, given.key);
  if (!svid) return at(svid.error().message, given.spiffe_id);
  // Section 5.1: spiffe_id is that of the SVID in this entry; a choice by it must not lead to another identity.
  if (svid->id.text() != given.spiffe_id) return at("the certificate is for " + svid->id.text(), given.spiffe_id);
  auto domain = TrustDomain::parse(svid->id.trust_domain());
  if (!domain) return at(domain.error().message, given.spiffe_id);
  auto bundle = TrustBundle::parse_der(given.bundle, std::move(domain).value());
  if (!bundle) return at(bundle.error().message, given.spiffe_id);

  TrustBundleSet bundles;
  if (update.federated_bundles.size() > max_federated_bundles) {
    return at(std::to_string(update.federated_bundles.size()) + " bundles; at most " + std::to_string(max_federated_bundles) + " are read",
              "federated_bundles");
  }
  for (const auto& [name, authorities] : update.federated_bundles) {
    const auto id = SpiffeId::parse(name);
    if (!id || !id->path().empty()) return at("a key is not the SPIFFE ID of a trust domain", "federated_bundles");
    if (id->trust_domain() == svid->id.trust_domain()) continue;  // the own domain's bundle is that of the SVID
    auto foreign = TrustBundle::parse_der(authorities, *TrustDomain::parse(id->trust_domain()));
    if (!foreign) return at(foreign.error().message, "federated_bundles[" + name + "]");
    bundles.add(std::move(foreign).value());
  }
  bundles.add(std::move(bundle).value());
  return make_x509_context(std::move(svid).value(), std::move(bundles), now, std::string(source_name) + ": " + given.spiffe_id,
                           "the bundle that came with it");
}

}  // namespace postern
