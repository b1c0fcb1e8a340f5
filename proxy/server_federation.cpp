// The trust bundles of other trust domains: from files, from the control plane, or from the Workload API together with the SVID.
#include "proxy/server_unit.hpp"

namespace postern {

void Server::read_federated_files() {
  const bool changed = federated_files_->poll();
  for (const std::string& warning : federated_files_->take_warnings()) {
    identity_rejected_.fetch_add(1);
    log_.warning("federated_bundle_warning", {{"what", warning}});
  }
  if (changed) renew_bundles();
}

// A bundle that cannot be read, or is older than what is held, changes nothing: PolicyClient has refused the former, and a replica that
// lags behind sends the latter.
void Server::adopt_federated(FederatedBundles bundles, std::function<void()> adopted) {
  const auto work = [this, bundles = std::move(bundles)] {
    std::erase_if(streamed_bundles_, [&](const auto& held) { return !bundles.contains(held.first); });
    for (const auto& [name, record] : bundles) {
      const auto domain = TrustDomain::parse(name);
      HeldBundle& held = streamed_bundles_[name];
      if (held.sequence && record.sequence && *record.sequence < *held.sequence) {
        log_.warning("federated_bundle_older",
                     {{"trust_domain", name}, {"sequence", std::to_string(*record.sequence)}, {"kept", std::to_string(*held.sequence)}});
        continue;
      }
      auto bundle = TrustBundle::parse(record.roots, *domain);
      if (!bundle) continue;
      held.bundle = std::make_shared<const TrustBundle>(*std::move(bundle));
      held.sequence = record.sequence;
    }
    renew_bundles();
  };
  adopt(work, std::move(adopted));
}

// The SVID in use with every bundle that there is. Of one trust domain only one counts, never two together: that of a file first, then the
// source's own (Workload API), then the control plane's. The mesh's own comes from the source alone.
void Server::renew_bundles() {
  if (source_context_ == nullptr) return;
  TrustBundleSet bundles;
  for (const auto& [domain, held] : streamed_bundles_) {
    if (held.bundle) bundles.add(held.bundle);
  }
  for (const auto& [domain, bundle] : source_context_->bundles.all()) bundles.add(bundle);
  if (federated_files_) {
    for (const FederatedFiles::File& file : federated_files_->files()) {
      if (file.held.bundle) bundles.add(file.held.bundle);
    }
  }
  const ContentHash hash = bundles.hash();
  if (bundles_in_use_ == hash) return;
  bundles_in_use_ = hash;
  publish_identity(with_bundles(*source_context_, std::move(bundles)));
}

}  // namespace postern
