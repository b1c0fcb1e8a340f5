#include "certs/authority.hpp"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>

#include <algorithm>

#include "certs/certificate_builder.hpp"
#include "certs/pkcs11_key.hpp"
#include "certs/private_key.hpp"
#include "certs/trust_bundle.hpp"
#include "certs/verify.hpp"

namespace postern {
namespace {

// X509-SVID sections 3.1, 4.1 to 4.3: a signing certificate may carry the trust domain's ID, is a CA, and may sign certificates and CRLs.
Result<X509Ptr> make_ca(const TrustDomain& domain, std::string_view name, X509* issuer, EVP_PKEY* key, EVP_PKEY* signing_key,
                        int path_length, SystemTime from, SystemTime to) {
  X509Ptr made = unsigned_certificate("CN", name, issuer, key, from, to);
  X509* const certificate = made.get();
  X509* const signer = issuer == nullptr ? certificate : issuer;
  if (certificate == nullptr ||
      !add_extension(certificate, signer, NID_basic_constraints, "critical,CA:TRUE,pathlen:" + std::to_string(path_length)) ||
      !add_extension(certificate, signer, NID_key_usage, "critical,keyCertSign,cRLSign") ||
      !add_extension(certificate, signer, NID_subject_alt_name, "URI:spiffe://" + domain.text()) ||
      !add_extension(certificate, signer, NID_name_constraints, "critical,permitted;URI:" + domain.text()) ||
      !add_extension(certificate, signer, NID_subject_key_identifier, "hash") ||
      (issuer != nullptr && !add_extension(certificate, signer, NID_authority_key_identifier, "keyid")) ||
      X509_sign(certificate, signing_key, EVP_sha256()) <= 0) {
    return openssl_error("cannot make the authority's " + std::string(name));
  }
  return made;
}

Result<KeyPtr> read_key(const std::string& pem) {
  if (is_pkcs11_uri(pem)) return load_pkcs11_key(pem);
  const KeyScope scope;
  if (pem.size() > max_key_bytes) return Error{"the authority's key is longer than 65536 bytes", {}};
  ERR_clear_error();
  const BioPtr bio(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())));
  KeyPtr key(bio ? PEM_read_bio_PrivateKey(
                       bio.get(), nullptr, [](char*, int, int, void*) { return -1; }, nullptr)
                 : nullptr);
  if (!key) return openssl_error("the authority's key cannot be read; expected one unencrypted PEM PRIVATE KEY block");
  if (EVP_PKEY_get_security_bits(key.get()) < 112) return Error{"the authority's key is too weak; expected ECDSA P-256", {}};
  return key;
}

}  // namespace

Result<AuthorityFiles> Authority::create(const TrustDomain& domain, std::chrono::seconds lifetime, SystemTime now) {
  ERR_clear_error();
  const KeyPtr root_key = new_p256_key();
  const KeyPtr key = new_p256_key();
  if (!root_key || !key) return openssl_error("cannot make the authority's keys");
  const SystemTime from = now - not_before_skew;
  const SystemTime to = now + lifetime;
  auto root = make_ca(domain, "Postern root", nullptr, root_key.get(), root_key.get(), 1, from, to);
  if (!root) return root.error();
  auto intermediate = make_ca(domain, "Postern intermediate", root->get(), key.get(), root_key.get(), 0, from, to);
  if (!intermediate) return intermediate.error();
  AuthorityFiles files{pem_of(root->get()), pem_of(intermediate->get()), pem_of(key.get())};
  if (files.roots.empty() || files.chain.empty() || files.key.empty()) return openssl_error("cannot write the authority");
  return files;
}

Result<Authority> Authority::load(const AuthorityFiles& files, const TrustDomain& domain, SystemTime now) {
  auto bundle = TrustBundle::parse(files.roots, domain);
  if (!bundle) return Error{"roots: " + bundle.error().message, {}};
  auto chain = parse_certificates_pem(files.chain, max_chain_length - 1);
  if (!chain) return Error{"signing certificate: " + chain.error().message, {}};
  auto key = read_key(files.key);
  if (!key) return key.error();

  Authority loaded;
  loaded.domain_ = domain;
  loaded.signer_ = share(chain->front().get());
  loaded.key_ = std::move(*key);
  loaded.roots_pem_ = files.roots;
  ERR_clear_error();
  if (X509_check_ca(loaded.signer_.get()) != 1) {
    return Error{"the signing certificate is no CA certificate that may sign; expected CA:TRUE and keyCertSign (X509-SVID section 4)", {}};
  }
  if (X509_check_private_key(loaded.signer_.get(), loaded.key_.get()) != 1) {
    ERR_clear_error();
    return Error{"the authority's key is not that of its signing certificate", {}};
  }
  for (const X509Ptr& certificate : *chain) {
    // A self-signed one is a root: who verifies has it, or would not believe this one.
    if (X509_self_signed(certificate.get(), 0) == 1) continue;
    loaded.chain_pem_ += pem_of(certificate.get());
  }
  const auto from = not_before_of(loaded.signer_.get());
  auto serial = serial_of(loaded.signer_.get());
  if (!from || !serial) return Error{"the signing certificate's validity or serial number cannot be read", {}};
  loaded.not_before_ = *from;
  loaded.not_after_ = SystemTime::max();
  for (const X509Ptr& certificate : *chain) {
    const auto to = not_after_of(certificate.get());
    if (!to) return to.error();
    loaded.not_after_ = std::min(loaded.not_after_, *to);
  }
  loaded.serial_ = *std::move(serial);

  // As everybody who meets one of its SVIDs will see it: one is made, and verified.
  const auto probe_id = SpiffeId::parse("spiffe://" + domain.text() + "/probe");
  if (!probe_id) return probe_id.error();
  const KeyPtr probe_key = new_p256_key();
  const auto probe = loaded.sign_svid(probe_key.get(), *probe_id, std::chrono::hours(1), now);
  if (!probe) return probe.error();
  const auto probe_chain = parse_certificates_pem(probe->chain_pem, max_chain_length);
  if (!probe_chain) return probe_chain.error();
  TrustBundleSet bundles;
  bundles.add(std::move(*bundle));
  const auto verified = verify_peer(borrow(*probe_chain).get(), bundles, TlsEnd::both, now, std::chrono::seconds(0));
  if (!verified.peer) {
    return Error{"no SVID of this authority would be accepted: " + std::string(describe(verified.error)) +
                     (verified.detail.empty() ? "" : " (" + verified.detail + ")"),
                 {}};
  }
  return loaded;
}

Result<SignedSvid> Authority::sign_svid(EVP_PKEY* public_key, const SpiffeId& id, std::chrono::seconds ttl, SystemTime now) const {
  if (id.trust_domain() != domain_.text() || id.path().empty())
    return Error{"the authority of " + domain_.text() + " signs no SVID for " + id.text(), {}};
  // X.509 knows whole seconds: the end that is told is the end that stands there.
  const SystemTime to = std::chrono::floor<std::chrono::seconds>(std::min(now + ttl, not_after_));
  if (to <= now) return Error{"the authority has expired at " + utc_text(not_after_) + "; rotate it", {}};
  ERR_clear_error();
  X509* const signer = signer_.get();
  const X509Ptr leaf = unsigned_certificate("O", "Postern", signer, public_key, std::max(now - not_before_skew, not_before_), to);
  // X509-SVID sections 2 and 4: exactly one URI SAN, no CA, digitalSignature; both ends of TLS. A SPIFFE ID has no character that OpenSSL's
  // syntax would take for its own.
  if (!leaf || !add_extension(leaf.get(), signer, NID_basic_constraints, "critical,CA:FALSE") ||
      !add_extension(leaf.get(), signer, NID_key_usage, "critical,digitalSignature") ||
      !add_extension(leaf.get(), signer, NID_ext_key_usage, "serverAuth,clientAuth") ||
      !add_extension(leaf.get(), signer, NID_subject_key_identifier, "hash") ||
      !add_extension(leaf.get(), signer, NID_authority_key_identifier, "keyid") ||
      !add_extension(leaf.get(), signer, NID_subject_alt_name, "URI:" + id.text()) ||
      X509_sign(leaf.get(), key_.get(), EVP_PKEY_get_base_id(key_.get()) == EVP_PKEY_ED25519 ? nullptr : EVP_sha256()) <= 0) {
    return openssl_error("cannot sign an SVID");
  }
  auto serial = serial_of(leaf.get());
  if (!serial) return serial.error();
  return SignedSvid{pem_of(leaf.get()) + chain_pem_, *std::move(serial), to};
}

}  // namespace postern
