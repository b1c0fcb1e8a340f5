#include "certs/csr.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#include "certs/certificate_builder.hpp"

namespace postern {
namespace {

using testing::HasSubstr;

std::string csr_of(const KeyPtr& key) {
  const auto csr = make_csr(key.get());
  EXPECT_TRUE(csr);
  return csr ? *csr : std::string();
}

// Ed25519 signs without a digest of its own, which make_csr() does not know: nobody asks for it.
std::string foreign_csr(EVP_PKEY* key, const EVP_MD* digest, const char* san = nullptr) {
  X509_REQ* request = X509_REQ_new();
  X509_REQ_set_pubkey(request, key);
  if (san != nullptr) {
    X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request), "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>("root"), -1,
                               -1, 0);
    STACK_OF(X509_EXTENSION)* extensions = sk_X509_EXTENSION_new_null();
    sk_X509_EXTENSION_push(extensions, X509V3_EXT_conf_nid(nullptr, nullptr, NID_subject_alt_name, san));
    X509_REQ_add_extensions(request, extensions);
    sk_X509_EXTENSION_pop_free(extensions, X509_EXTENSION_free);
  }
  X509_REQ_sign(request, key, digest);
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(bio.get(), request);
  X509_REQ_free(request);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string refusal_of(std::string_view pem) {
  const auto key = parse_csr(pem);
  return key ? "accepted" : key.error().text();
}

TEST(Csr, GivesThePublicKeyOfP256AndP384) {
  for (const char* curve : {"P-256", "P-384"}) {
    const KeyPtr key(EVP_EC_gen(curve));
    const auto read = parse_csr(csr_of(key));
    ASSERT_TRUE(read) << read.error().text();
    EXPECT_EQ(EVP_PKEY_eq(read->get(), key.get()), 1);
  }
}

TEST(Csr, RefusesOtherKeysWithTheReason) {
  EXPECT_THAT(refusal_of(foreign_csr(KeyPtr(EVP_EC_gen("P-521")).get(), EVP_sha256())),
              HasSubstr("secp521r1; expected an EC key on P-256"));
  EXPECT_THAT(refusal_of(foreign_csr(KeyPtr(EVP_EC_gen("secp256k1")).get(), EVP_sha256())), HasSubstr("secp256k1; expected"));
  EXPECT_THAT(refusal_of(foreign_csr(KeyPtr(EVP_RSA_gen(2048)).get(), EVP_sha256())), HasSubstr("type RSA; expected an EC key"));
  EXPECT_THAT(refusal_of(foreign_csr(KeyPtr(EVP_PKEY_Q_keygen(nullptr, nullptr, "ED25519")).get(), nullptr)),
              HasSubstr("type ED25519; expected an EC key"));
}

TEST(Csr, RefusesAKeyThatTheSenderDoesNotHold) {
  const KeyPtr key = new_p256_key();
  const KeyPtr others = new_p256_key();
  X509_REQ* request = X509_REQ_new();
  X509_REQ_set_pubkey(request, others.get());
  X509_REQ_sign(request, key.get(), EVP_sha256());
  const BioPtr bio(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509_REQ(bio.get(), request);
  X509_REQ_free(request);
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &data);
  EXPECT_THAT(refusal_of({data, static_cast<std::size_t>(size)}), HasSubstr("signature is not that of its key"));
}

TEST(Csr, NamesThatItAsksForAreNoReasonToRefuse) {
  const KeyPtr key = new_p256_key();
  EXPECT_EQ(refusal_of(foreign_csr(key.get(), EVP_sha256(), "URI:spiffe://example.org/postern/control")), "accepted");
}

TEST(Csr, RefusesWhatIsNoneOrTooLong) {
  EXPECT_THAT(refusal_of(""), HasSubstr("expected one PEM CERTIFICATE REQUEST"));
  EXPECT_THAT(refusal_of(pem_of(new_p256_key().get())), HasSubstr("expected one PEM CERTIFICATE REQUEST"));
  EXPECT_THAT(refusal_of(std::string(max_csr_bytes + 1, 'a')), HasSubstr("at most 8192"));
}

}  // namespace
}  // namespace postern
