// Certificates from files ('P': chain, NUL, bundle, as PEM) and from peers (anything else: length-prefixed DER certificates, the
// last one the authority). Whatever they are, an identity comes out only where every rule held.
#include <openssl/pem.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "certs/trust_bundle.hpp"
#include "certs/verify.hpp"

namespace {

using namespace postern;

void check(STACK_OF(X509) * chain, std::string_view bundle_pem) {
  X509* const leaf = sk_X509_value(chain, 0);
  const LeafCheck rules = check_leaf(leaf, TlsEnd::client);
  auto domain = TrustDomain::parse(rules.error == CertificateError::none ? rules.id.trust_domain() : std::string_view("example.org"));
  if (!domain) std::abort();
  TrustBundleSet bundles;
  if (auto bundle = TrustBundle::parse(bundle_pem, std::move(domain).value())) bundles.add(std::move(bundle).value());
  // Within the leaf's own validity, so that no seed grows old.
  const auto starts = not_before_of(leaf);
  const SystemTime now = starts ? *starts + std::chrono::seconds(1) : SystemTime();
  const PeerVerification verified = verify_peer(chain, bundles, TlsEnd::client, now, std::chrono::seconds(60));
  if (verified.peer.has_value() != (verified.error == CertificateError::none)) std::abort();
  if (verified.peer && (rules.error != CertificateError::none || verified.peer->id != rules.id || bundles.size() != 1)) std::abort();

  // Who explains it comes to the same end. The order of its issuers is nobody's business but its owner's.
  std::vector<X509Ptr> certificates;
  for (int i = 0; i < sk_X509_num(chain); ++i) certificates.push_back(share(sk_X509_value(chain, i)));
  const auto results = explain_svid(certificates, &bundles, TlsEnd::client, now, std::chrono::seconds(60));
  const bool broken = std::any_of(results.begin(), results.end(), [](const RuleResult& result) {
    return result.outcome == RuleResult::Outcome::failed && result.rule != CertificateError::chain_order;
  });
  if (broken == verified.peer.has_value()) std::abort();
}

void from_files(std::string_view text) {
  const std::size_t end = std::min(text.find('\0'), text.size());
  const std::string_view chain_pem = text.substr(0, end);
  const auto svid = parse_svid(chain_pem, chain_pem);
  if (svid && check_leaf(svid->chain.front().get(), TlsEnd::both).error != CertificateError::none) std::abort();
  const auto chain = parse_certificates_pem(chain_pem, max_chain_length);
  if (!chain) return;
  check(borrow(*chain).get(), end == text.size() ? std::string_view() : text.substr(end + 1));
}

void from_peer(std::string_view bytes) {
  const X509StackPtr stack(sk_X509_new_null());
  while (bytes.size() >= 2) {
    const std::size_t size = static_cast<std::uint8_t>(bytes[0]) * 256U + static_cast<std::uint8_t>(bytes[1]);
    auto certificate = parse_certificate_der(bytes.substr(2, size));
    if (!certificate) return;
    sk_X509_push(stack.get(), std::move(certificate).value().release());
    bytes.remove_prefix(std::min(bytes.size(), size + 2));
  }
  if (sk_X509_num(stack.get()) < 2) return;
  const X509Ptr authority(sk_X509_pop(stack.get()));
  const BioPtr pem(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(pem.get(), authority.get()) != 1) return;
  char* text = nullptr;
  const long size = BIO_get_mem_data(pem.get(), &text);
  check(stack.get(), {text, static_cast<std::size_t>(size)});
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (*data == 'P') {
    from_files(rest);
  } else {
    from_peer(rest);
  }
  return 0;
}
