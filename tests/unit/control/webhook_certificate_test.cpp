#include "control/webhook_certificate.hpp"

#include <gtest/gtest.h>
#include <openssl/x509v3.h>

namespace postern {
namespace {

using std::chrono::hours;

const SystemTime now = std::chrono::system_clock::now();

X509Ptr certificate_of(const PemPair& pair) {
  auto certificates = parse_certificates_pem(pair.certificate, 4);
  EXPECT_TRUE(certificates) << certificates.error().text();
  return std::move(certificates->front());
}

// What an API server that trusts `authority` says of `leaf` for this name.
bool is_accepted(const PemPair& authority, const PemPair& leaf, const char* name) {
  const X509Ptr root = certificate_of(authority);
  const X509Ptr end = certificate_of(leaf);
  X509_STORE* store = X509_STORE_new();
  X509_STORE_add_cert(store, root.get());
  X509_STORE_CTX* context = X509_STORE_CTX_new();
  X509_STORE_CTX_init(context, store, end.get(), nullptr);
  X509_STORE_CTX_set_purpose(context, X509_PURPOSE_SSL_SERVER);
  X509_VERIFY_PARAM_set1_host(X509_STORE_CTX_get0_param(context), name, 0);
  const bool accepted = X509_verify_cert(context) == 1;
  X509_STORE_CTX_free(context);
  X509_STORE_free(store);
  return accepted;
}

TEST(WebhookCertificate, IsAcceptedForItsNamesUnderItsAuthority) {
  const auto authority = make_webhook_authority(now);
  ASSERT_TRUE(authority) << authority.error().text();
  const auto other = make_webhook_authority(now);
  ASSERT_TRUE(other);
  const auto leaf = make_webhook_certificate(*authority, {"postern-control.postern-system.svc", "localhost"}, now);
  ASSERT_TRUE(leaf) << leaf.error().text();
  EXPECT_TRUE(is_accepted(*authority, *leaf, "postern-control.postern-system.svc"));
  EXPECT_TRUE(is_accepted(*authority, *leaf, "localhost"));
  EXPECT_FALSE(is_accepted(*authority, *leaf, "kubernetes.default.svc"));
  EXPECT_FALSE(is_accepted(*other, *leaf, "localhost"));
  EXPECT_FALSE(is_accepted(*authority, *authority, "localhost"));
}

TEST(WebhookCertificate, IsDueWithAThirdOfItsLifeLeft) {
  const auto authority = make_webhook_authority(now);
  ASSERT_TRUE(authority);
  const auto leaf = make_webhook_certificate(*authority, {"a"}, now);
  ASSERT_TRUE(leaf);
  EXPECT_FALSE(is_due_for_renewal(leaf->certificate, now));
  EXPECT_FALSE(is_due_for_renewal(leaf->certificate, now + webhook_certificate_lifetime / 2));
  EXPECT_TRUE(is_due_for_renewal(leaf->certificate, now + webhook_certificate_lifetime * 3 / 4));
  EXPECT_TRUE(is_due_for_renewal(leaf->certificate, now + 2 * webhook_certificate_lifetime));
  EXPECT_FALSE(is_due_for_renewal(authority->certificate, now + webhook_authority_lifetime / 2));
  EXPECT_TRUE(is_due_for_renewal("", now));
  EXPECT_TRUE(is_due_for_renewal("-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", now));
}

TEST(WebhookCertificate, DoesNotOutliveItsAuthority) {
  const auto authority = make_webhook_authority(now - webhook_authority_lifetime + hours{1});
  ASSERT_TRUE(authority);
  const auto leaf = make_webhook_certificate(*authority, {"a"}, now);
  ASSERT_TRUE(leaf);
  EXPECT_EQ(*not_after_of(certificate_of(*leaf).get()), *not_after_of(certificate_of(*authority).get()));
}

TEST(WebhookCertificate, ABadAuthorityIsAnError) {
  EXPECT_FALSE(make_webhook_certificate({"x", "y"}, {"a"}, now));
  const auto authority = make_webhook_authority(now);
  EXPECT_FALSE(make_webhook_certificate({authority->certificate, "y"}, {"a"}, now));
  EXPECT_FALSE(make_webhook_certificate(*authority, {}, now));
}

}  // namespace
}  // namespace postern
