#include "certs/authority.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/x509v3.h>

#include "certs/certificate_builder.hpp"
#include "certs/trust_bundle.hpp"
#include "certs/verify.hpp"
#include "tests/kit/test_authority.hpp"

namespace postern {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using testing::HasSubstr;

const SystemTime now = std::chrono::floor<seconds>(std::chrono::system_clock::now());

TrustDomain domain(std::string_view name = "example.org") { return *TrustDomain::parse(name); }
SpiffeId id(std::string_view text = "spiffe://example.org/ns/shop/sa/web/pod/web-0/1234") { return *SpiffeId::parse(text); }

Authority made(seconds lifetime = hours(24)) {
  const auto files = Authority::create(domain(), lifetime, now);
  EXPECT_TRUE(files) << files.error().text();
  auto authority = Authority::load(*files, domain(), now);
  EXPECT_TRUE(authority) << authority.error().text();
  return *std::move(authority);
}

PeerVerification verified(const SignedSvid& svid, std::string_view roots, SystemTime at, std::string_view of = "example.org") {
  const auto chain = parse_certificates_pem(svid.chain_pem, max_chain_length);
  TrustBundleSet bundles;
  bundles.add(*TrustBundle::parse(roots, domain(of)));
  return verify_peer(borrow(*chain).get(), bundles, TlsEnd::both, at, seconds(0));
}

TEST(Authority, SignsWhatEverybodyAcceptsAndNobodyLongerThanSaid) {
  const Authority authority = made();
  const KeyPtr key = new_p256_key();
  const auto svid = authority.sign_svid(key.get(), id(), hours(1), now);
  ASSERT_TRUE(svid) << svid.error().text();
  const auto peer = verified(*svid, authority.roots_pem(), now);
  ASSERT_TRUE(peer.peer) << describe(peer.error) << peer.detail;
  EXPECT_EQ(peer.peer->id, id());
  EXPECT_EQ(peer.peer->serial, svid->serial);
  EXPECT_EQ(peer.peer->not_after, now + hours(1));
  EXPECT_EQ(svid->not_after, now + hours(1));
  EXPECT_TRUE(verified(*svid, authority.roots_pem(), now - seconds(30)).peer) << "valid from 30 s before: clocks differ";
  EXPECT_EQ(verified(*svid, authority.roots_pem(), now - seconds(31)).error, CertificateError::not_yet_valid);
  EXPECT_EQ(verified(*svid, authority.roots_pem(), now + hours(1)).error, CertificateError::expired);
  const auto loaded = parse_svid(svid->chain_pem, pem_of(key.get()));
  EXPECT_TRUE(loaded) << loaded.error().text();
}

TEST(Authority, AnSvidEndsWithItsAuthority) {
  const Authority authority = made(hours(1));
  const auto svid = authority.sign_svid(new_p256_key().get(), id(), hours(24), now);
  ASSERT_TRUE(svid);
  EXPECT_EQ(svid->not_after, authority.not_after());
  const auto late = authority.sign_svid(new_p256_key().get(), id(), hours(24), now + hours(2));
  ASSERT_FALSE(late);
  EXPECT_THAT(late.error().text(), HasSubstr("rotate"));
}

TEST(Authority, SignsNothingOfAnotherTrustDomain) {
  const Authority authority = made();
  EXPECT_FALSE(authority.sign_svid(new_p256_key().get(), id("spiffe://other.org/ns/a/sa/b"), hours(1), now));
  EXPECT_FALSE(authority.sign_svid(new_p256_key().get(), id("spiffe://example.org"), hours(1), now));
}

// A stolen key signs for its own trust domain only, wherever its root is trusted: the name constraints say so.
TEST(Authority, ItsNameConstraintsBindItToItsTrustDomain) {
  const auto files = Authority::create(domain(), hours(1), now);
  ASSERT_TRUE(files);
  const auto thief = test::TestAuthority::load(files->chain, files->key);
  const auto stolen = thief.issue("spiffe://other.org/ns/a/sa/b/pod/c/d");
  const SignedSvid svid{stolen.chain_pem, "", {}};
  EXPECT_EQ(verified(svid, files->roots, std::chrono::system_clock::now(), "other.org").error, CertificateError::name_constraints);
  const auto other = Authority::load(*files, domain("other.org"), now);
  ASSERT_FALSE(other);
}

TEST(Authority, ItsIntermediateMakesNoFurtherCa) {
  const auto files = Authority::create(domain(), hours(1), now);
  ASSERT_TRUE(files);
  const auto below = test::TestAuthority::load(files->chain, files->key).intermediate("below");
  const SignedSvid svid{below.issue("spiffe://example.org/ns/a/sa/b/pod/c/d").chain_pem, "", {}};
  EXPECT_EQ(verified(svid, files->roots, std::chrono::system_clock::now()).error, CertificateError::path_too_long);
}

TEST(Authority, TwoOfThemDoNotTrustEachOther) {
  const Authority one = made();
  const Authority two = made();
  const auto svid = one.sign_svid(new_p256_key().get(), id(), hours(1), now);
  EXPECT_FALSE(verified(*svid, two.roots_pem(), now).peer);
}

std::string refusal_of(const AuthorityFiles& files) {
  const auto loaded = Authority::load(files, domain(), std::chrono::system_clock::now());
  return loaded ? "accepted" : loaded.error().text();
}

TEST(Authority, TakesAGivenOneAsCertManagerWritesIt) {
  const auto root = test::TestAuthority::root("given");
  EXPECT_EQ(refusal_of({root.certificate_pem(), root.certificate_pem(), root.key_pem()}), "accepted") << "a root that signs itself";
  const auto below = root.intermediate("below");
  EXPECT_EQ(refusal_of({root.certificate_pem(), below.certificate_pem(), below.key_pem()}), "accepted");
  EXPECT_EQ(refusal_of({root.certificate_pem(), below.certificate_pem() + root.certificate_pem(), below.key_pem()}), "accepted");
}

TEST(Authority, RefusesAGivenOneThatWouldNotDo) {
  const auto root = test::TestAuthority::root("given");
  const auto other = test::TestAuthority::root("other");
  const auto below = root.intermediate("below");
  EXPECT_THAT(refusal_of({other.certificate_pem(), below.certificate_pem(), below.key_pem()}), HasSubstr("does not chain"));
  EXPECT_THAT(refusal_of({root.certificate_pem(), below.certificate_pem(), other.key_pem()}), HasSubstr("not that of its signing"));
  EXPECT_THAT(refusal_of({root.certificate_pem(), below.certificate_pem(), ""}), HasSubstr("expected one unencrypted"));
  EXPECT_THAT(refusal_of({"", below.certificate_pem(), below.key_pem()}), HasSubstr("roots"));
  const auto leaf = root.issue("spiffe://example.org/a");
  EXPECT_THAT(refusal_of({root.certificate_pem(), leaf.chain_pem, leaf.key_pem}), HasSubstr("no CA certificate"));
  test::CaOptions expired;
  expired.not_before_offset = seconds(-200);
  expired.ttl = seconds(-100);
  const auto old = root.intermediate("old", expired);
  EXPECT_THAT(refusal_of({root.certificate_pem(), old.certificate_pem(), old.key_pem()}), HasSubstr("expired"));
}

}  // namespace
}  // namespace postern
