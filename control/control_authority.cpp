// The built-in CA within the control plane: its own SVID, what it signs for pods, and the trust bundle on every stream.
#include "authz/resource.hpp"
#include "certs/certificate_builder.hpp"
#include "control/control.hpp"
#include "control/resource_hash.hpp"

namespace postern {
namespace {

// Its own SVID: signed by the authority for the one ID that no pod ever gets, with a key made for it.
Result<X509ContextPtr> own_identity(const Authority& authority, const NumberedBundle& bundle, const TrustDomain& domain,
                                    std::chrono::seconds ttl, SystemTime now) {
  const auto id = SpiffeId::parse("spiffe://" + domain.text() + "/postern/control");
  if (!id) return id.error();
  const KeyPtr key = new_p256_key();
  if (!key) return openssl_error("cannot make a key");
  const auto svid = authority.sign_svid(key.get(), *id, ttl, now);
  if (!svid) return svid.error();
  auto parsed = parse_svid(svid->chain_pem, pem_of(key.get()));
  if (!parsed) return parsed.error();
  auto roots = TrustBundle::parse(bundle.roots, domain);
  if (!roots) return roots.error();
  TrustBundleSet bundles;
  bundles.add(std::move(*roots));
  return std::make_shared<const X509Context>(X509Context{std::move(*parsed), std::move(bundles)});
}

}  // namespace

Result<Port> Control::make_authority() {
  AuthorityStore::Settings settings;
  settings.ns = config_.authority.ns;
  settings.secret = config_.authority.secret;
  settings.given_secret = config_.authority.given_secret;
  settings.domain = config_.mesh.trust_domain;
  settings.svid_ttl = config_.authority.svid_ttl;
  settings.lifetime = config_.authority.lifetime;
  settings.replica = replica_;
  AuthorityStore::Handlers handlers;
  handlers.changed = [this] { use_authority(); };
  handlers.lagging = [this](std::uint64_t sequence) { return lagging_behind(sequence); };
  authority_ = std::make_unique<AuthorityStore>(io_, client_, std::move(settings), std::move(handlers), log_);
  signing_ = std::make_unique<SigningServer>(io_, config_, client_, *authority_, bundle_acks_, log_);
  auto socket = listen_on_port(config_.listen.signing, "listen.signing");
  if (!socket) return socket.error();
  const Port port = socket->port();
  signing_->start(*std::move(socket));
  authority_->start();
  return port;
}

// Called after each look at the Secret: what is the same already costs nothing.
void Control::use_authority() {
  const NumberedBundle* bundle = authority_->bundle();
  if (bundle == nullptr) return;
  if (bundle_resource_ == nullptr || bundle_in_use_ != *bundle) {
    bundle_in_use_ = *bundle;
    bundle_resource_ = make_resource(std::string(trust_bundle_name), encode_trust_bundle(bundle->sequence, bundle->roots));
    server_->use_trust_bundle(bundle_resource_);
    if (webhooks_) webhooks_->use_roots(bundle->roots);
    log_.info("trust_bundle_published", {{"bundle_sequence", std::to_string(bundle->sequence)}});
  }
  const auto authority = authority_->authority();
  if (authority == nullptr) return;
  const SystemTime now = std::chrono::system_clock::now();
  const bool renew = identity_ && now > identity_->svid.not_before + (identity_->svid.not_after - identity_->svid.not_before) / 2;
  const bool same = identity_ && own_signer_ == authority->serial() && own_sequence_ == bundle->sequence;
  if (same && !renew) return;
  auto identity = own_identity(*authority, *bundle, config_.mesh.trust_domain, config_.authority.svid_ttl, now);
  Result<void> used = identity ? server_->use_identity(*identity) : Result<void>(identity.error());
  if (used) used = signing_->use_identity(*identity);
  if (!used) {
    ++identity_rejected_;
    identity_error_ = used.error().text();
    log_.error("identity_rejected", {{"error", identity_error_}});
    return;
  }
  identity_error_.clear();
  identity_ = *identity;
  own_signer_ = authority->serial();
  own_sequence_ = bundle->sequence;
  log_.info("identity_in_use", {{"spiffe_id", identity_->svid.id.text()}, {"serial", identity_->svid.serial}});
}

std::uint64_t Control::lagging_behind(std::uint64_t sequence) {
  const SystemTime now = std::chrono::system_clock::now();
  server_->for_each_stream([&](const PolicyStream& stream) {
    const bool has_it =
        bundle_resource_ != nullptr && stream.acknowledged().has(trust_bundle_name, bundle_resource_->hash) && stream.acknowledged_once();
    bundle_acks_.saw(stream.owner().key, stream.owner().uid, has_it ? bundle_in_use_.sequence : 0, now);
  });
  // Before everything is listed, nobody is known to be gone.
  const bool synced = store_.synced();
  const auto exists = [&](const WorkloadKey& key, const std::string& uid) {
    const auto pod = store_.view().pods.find(key);
    if (pod == store_.view().pods.end() || pod->second.workload.uid != uid) return !synced;
    return !pod->second.ended();
  };
  return bundle_acks_.lagging(sequence, config_.authority.svid_ttl, now, exists);
}

std::optional<std::string> Control::authority_json() {
  return ask([this]() -> std::string { return authority_ ? authority_->status_json(bundle_acks_.examples()) : std::string(); });
}

std::optional<std::string> Control::rotate_authority() {
  return ask([this]() -> std::string {
    if (!authority_) return "this control plane has no authority: authority.enabled is false";
    const auto begun = authority_->rotate();
    return begun ? std::string() : begun.error().text();
  });
}

}  // namespace postern
