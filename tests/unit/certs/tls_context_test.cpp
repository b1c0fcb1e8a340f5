#include "certs/tls_context.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>

#include <thread>

#include "tests/kit/test_authority.hpp"
#include "tests/unit/certs/tls_pair.hpp"

namespace postern {
namespace {

using std::chrono::hours;
using std::chrono::seconds;
using std::chrono::system_clock;
using test::Pair;
using test::SvidOptions;
using test::TestAuthority;
using test::TestSvid;
using testing::HasSubstr;
using Kind = HandshakeFailure::Kind;

constexpr const char* client_id = "spiffe://example.org/ns/default/sa/default/pod/client/c1";
constexpr const char* server_id = "spiffe://example.org/ns/default/sa/default/pod/server/s1";
const SocketAddress destination{IpAddress::v4({10, 0, 0, 2}), Port{8080}};

TlsContext make(const std::shared_ptr<const X509Context>& identity, const std::shared_ptr<SessionCache>& sessions = nullptr,
                const TlsSettings& settings = {}) {
  auto made = TlsContext::make(identity, settings, sessions, 1);
  EXPECT_TRUE(made) << made.error().text();
  return std::move(made).value();
}

class Tls : public testing::Test {
 protected:
  static std::string text(const std::shared_ptr<const PeerIdentity>& peer) { return peer ? peer->id.text() : "nobody"; }

  std::shared_ptr<const X509Context> context(const char* id) { return make_context(root.issue(id), root); }

  TestAuthority root = TestAuthority::root("test CA");
  std::shared_ptr<SessionCache> client_sessions = std::make_shared<SessionCache>();
  std::shared_ptr<SessionCache> server_sessions = std::make_shared<SessionCache>();
};

TEST_F(Tls, BothEndsKnowEachOther) {
  const TlsContext client = make(context(client_id));
  const TlsContext server = make(context(server_id));
  Pair pair(client.new_client(destination, true), server.new_server(false));
  EXPECT_EQ(TlsContext::peer_identity(pair.client.get()), nullptr);
  ASSERT_TRUE(pair.handshake()) << pair.client_failure.detail << pair.server_failure.detail;
  EXPECT_EQ(text(TlsContext::peer_identity(pair.client.get())), server_id);
  EXPECT_EQ(text(TlsContext::peer_identity(pair.server.get())), client_id);
  EXPECT_EQ(TlsContext::peer_identity(pair.server.get())->serial, client.identity().svid.serial);
  EXPECT_EQ(TlsContext::peer_identity(pair.server.get())->not_after, client.identity().svid.not_after);
  EXPECT_TRUE(TlsContext::used_postern_alpn(pair.client.get()));
  EXPECT_TRUE(TlsContext::used_postern_alpn(pair.server.get()));
  const TlsFacts facts = TlsContext::facts(pair.server.get());
  EXPECT_EQ(facts.version, "TLSv1.3");
  EXPECT_EQ(facts.cipher, "TLS_AES_128_GCM_SHA256");
  EXPECT_FALSE(facts.group.empty());
  EXPECT_FALSE(facts.resumed);
}

TEST_F(Tls, TheKeyIsLentForTheHandshakeOnly) {
  const TlsContext client = make(context(client_id));
  const TlsContext server = make(context(server_id));
  EXPECT_EQ(client.identity().svid.key, nullptr);
  Pair pair(client.new_client(destination, true), server.new_server(false));
  // Retired while handshakes are under way: they go on.
  client.retire();
  server.retire();
  ASSERT_TRUE(pair.handshake()) << pair.client_failure.detail << pair.server_failure.detail;
  EXPECT_EQ(SSL_get_privatekey(pair.client.get()), nullptr);
  EXPECT_EQ(SSL_get_privatekey(pair.server.get()), nullptr);
  Pair late(make(context(client_id)).new_client(destination, true), server.new_server(false));
  EXPECT_FALSE(late.handshake());
}

// Whether there is a key in what `get` (one of OpenSSL's two getters) finds: a key's material belongs to a provider.
template <class Get>
bool has_key(SSL* ssl, Get get) {
  EVP_PKEY* key = nullptr;
  if (get(ssl, &key) != 1) return false;
  const KeyPtr owned(key);
  return EVP_PKEY_get0_provider(key) != nullptr;
}

TEST_F(Tls, NoEphemeralKeyOutlivesTheHandshake) {
  const auto own = [](SSL* ssl, EVP_PKEY** key) { return SSL_get_tmp_key(ssl, key); };
  const auto peers = [](SSL* ssl, EVP_PKEY** key) { return SSL_get_peer_tmp_key(ssl, key); };
  for (const char* groups : {"X25519MLKEM768:X25519", "X25519", "P-256"}) {
    TlsSettings settings;
    settings.groups = groups;
    const TlsContext client = make(context(client_id), client_sessions, settings);
    const TlsContext server = make(context(server_id), server_sessions, settings);
    for (const bool resumed : {false, true}) {
      SCOPED_TRACE(std::string(groups) + (resumed ? " resumed" : " full"));
      Pair pair(client.new_client(destination, true), server.new_server(false));
      ASSERT_TRUE(pair.handshake()) << pair.client_failure.detail << pair.server_failure.detail;
      EXPECT_EQ(TlsContext::facts(pair.client.get()).resumed, resumed);
      for (SSL* ssl : {pair.client.get(), pair.server.get()}) {
        EXPECT_FALSE(has_key(ssl, own));
        EXPECT_FALSE(has_key(ssl, peers));
        EXPECT_FALSE(TlsContext::facts(ssl).group.empty());
      }
      // What OpenSSL does with a connection later still works without them.
      EXPECT_EQ(SSL_key_update(pair.client.get(), SSL_KEY_UPDATE_REQUESTED), 1);
      EXPECT_TRUE(Pair::exchange(*pair.client, *pair.server) && Pair::exchange(*pair.server, *pair.client));
    }
    client_sessions->clear();
    server_sessions->clear();
  }
}

TEST_F(Tls, BothEndsDeriveTheSameConnectionId) {
  const TlsContext client = make(context(client_id));
  const TlsContext server = make(context(server_id));
  Pair one(client.new_client(destination, true), server.new_server(false));
  Pair two(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(one.handshake() && two.handshake());
  const auto id = TlsContext::export_connection_id(one.client.get());
  ASSERT_TRUE(id);
  EXPECT_EQ(*id, TlsContext::export_connection_id(one.server.get()).value());
  EXPECT_NE(*id, TlsContext::export_connection_id(two.client.get()).value());
}

TEST_F(Tls, ResumesAgainAndAgain) {
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  for (int i = 0; i < 5; ++i) {
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake()) << pair.client_failure.detail << pair.server_failure.detail;
    EXPECT_EQ(TlsContext::facts(pair.client.get()).resumed, i > 0);
    EXPECT_EQ(TlsContext::facts(pair.server.get()).resumed, i > 0);
    EXPECT_EQ(text(TlsContext::peer_identity(pair.client.get())), server_id);
    EXPECT_EQ(text(TlsContext::peer_identity(pair.server.get())), client_id);
    EXPECT_TRUE(TlsContext::used_postern_alpn(pair.server.get()));
    // Full handshake: one ticket. Resumed: none, the session goes on.
    EXPECT_EQ(server_sessions->server_size(), 1U);
    EXPECT_EQ(client_sessions->client_size(), 1U);
  }
}

TEST_F(Tls, ConnectionsOfOneSessionAtTheSameTime) {
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  Pair first(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(first.handshake());
  Pair second(client.new_client(destination, true), server.new_server(false));
  Pair third(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(second.handshake() && third.handshake());
  EXPECT_TRUE(TlsContext::facts(second.server.get()).resumed && TlsContext::facts(third.server.get()).resumed);
}

TEST_F(Tls, AnotherDestinationIsAnotherSession) {
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  Pair first(client.new_client(destination, true), server.new_server(false));
  Pair second(client.new_client({destination.address, Port{81}}, true), server.new_server(false));
  ASSERT_TRUE(first.handshake() && second.handshake());
  EXPECT_FALSE(TlsContext::facts(second.client.get()).resumed);
}

TEST_F(Tls, NoSessionsWhereResumptionIsOff) {
  TlsSettings settings;
  settings.resumption = false;
  const TlsContext client = make(context(client_id), client_sessions, settings);
  const TlsContext server = make(context(server_id), server_sessions, settings);
  for (int i = 0; i < 2; ++i) {
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
    EXPECT_FALSE(TlsContext::facts(pair.server.get()).resumed);
  }
  EXPECT_EQ(server_sessions->server_size() + client_sessions->client_size(), 0U);
}

TEST_F(Tls, ResumptionKeepsTheIdentityOfTheFullHandshake) {
  const auto first_client = context(client_id);
  {
    const TlsContext client = make(first_client, client_sessions);
    const TlsContext server = make(context(server_id), server_sessions);
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
  }
  // Both sides have renewed their SVIDs: new SSL_CTXs, same authority.
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  Pair pair(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(pair.handshake());
  EXPECT_TRUE(TlsContext::facts(pair.server.get()).resumed);
  EXPECT_EQ(text(TlsContext::peer_identity(pair.server.get())), client_id);
  EXPECT_EQ(TlsContext::peer_identity(pair.server.get())->serial, first_client->svid.serial);
  EXPECT_EQ(TlsContext::peer_identity(pair.server.get())->not_after, first_client->svid.not_after);
}

TEST_F(Tls, NoResumptionAfterTheServersBundleChanged) {
  const TlsContext client = make(context(client_id), client_sessions);
  {
    const TlsContext server = make(context(server_id), server_sessions);
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
  }
  // The server trusts one authority more.
  X509Context changed;
  const TestSvid svid = root.issue(server_id);
  changed.svid = parse_svid(svid.chain_pem, svid.key_pem).value();
  changed.bundles.add(TrustBundle::parse(root.certificate_pem() + TestAuthority::root("next CA").certificate_pem(),
                                         TrustDomain::parse("example.org").value())
                          .value());
  const TlsContext server = make(std::make_shared<const X509Context>(std::move(changed)), server_sessions);
  for (const bool resumed : {false, true}) {
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake()) << pair.client_failure.detail << pair.server_failure.detail;
    EXPECT_EQ(TlsContext::facts(pair.server.get()).resumed, resumed);
  }
}

TEST_F(Tls, NoResumptionAfterTheClientsBundleChanged) {
  const TlsContext server = make(context(server_id), server_sessions);
  {
    const TlsContext client = make(context(client_id), client_sessions);
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
  }
  // The client no longer trusts the server's authority: a session must not let it in.
  X509Context changed;
  const TestSvid svid = root.issue(client_id);
  changed.svid = parse_svid(svid.chain_pem, svid.key_pem).value();
  changed.bundles.add(TestAuthority::root("next CA").bundle("example.org"));
  const TlsContext client = make(std::make_shared<const X509Context>(std::move(changed)), client_sessions);
  Pair pair(client.new_client(destination, true), server.new_server(false));
  EXPECT_FALSE(pair.handshake());
  EXPECT_EQ(pair.client_failure.certificate, CertificateError::untrusted);
}

TEST_F(Tls, NoResumptionUnderAnotherIdentityOfOurs) {
  const TlsContext client = make(context(client_id), client_sessions);
  {
    const TlsContext server = make(context(server_id), server_sessions);
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
  }
  const TlsContext server = make(context("spiffe://example.org/ns/default/sa/default/pod/server/s2"), server_sessions);
  Pair pair(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(pair.handshake());
  EXPECT_FALSE(TlsContext::facts(pair.client.get()).resumed);
  EXPECT_EQ(text(TlsContext::peer_identity(pair.client.get())), "spiffe://example.org/ns/default/sa/default/pod/server/s2");
}

TEST_F(Tls, ASessionEndsWithTheEarlierSvid) {
  SvidOptions brief;
  brief.uris = {client_id};
  brief.ttl = seconds(1);
  const TlsContext client = make(make_context(root.issue(brief), root), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  Pair pair(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(pair.handshake());
  EXPECT_EQ(server_sessions->server_size(), 1U);
  EXPECT_EQ(client_sessions->client_size(), 1U);
  std::this_thread::sleep_until(client.identity().svid.not_after + std::chrono::milliseconds(5));
  // Within the clock skew a full handshake still works; the session does not.
  Pair second(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(second.handshake());
  EXPECT_FALSE(TlsContext::facts(second.server.get()).resumed);
  EXPECT_FALSE(client.usable(system_clock::now()));
  EXPECT_TRUE(server.usable(system_clock::now()));
}

TEST_F(Tls, AConnectionThatBreaksDoesNotSpoilTheSession) {
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  for (int i = 0; i < 3; ++i) {
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
    EXPECT_EQ(TlsContext::facts(pair.server.get()).resumed, i > 0);
    // Freed without close_notify, as after a reset.
  }
}

TEST_F(Tls, AConnectionOutlivesTheContextThatMadeIt) {
  auto client = std::make_unique<TlsContext>(make(context(client_id), client_sessions));
  auto server = std::make_unique<TlsContext>(make(context(server_id), server_sessions));
  Pair pair(client->new_client(destination, true), server->new_server(false));
  client.reset();
  server.reset();
  ASSERT_TRUE(pair.handshake());
  EXPECT_EQ(text(TlsContext::peer_identity(pair.server.get())), client_id);
}

// A client of another make: no rules of ours, whatever certificate and ALPN it likes.
class Stranger {
 public:
  Stranger() : ctx_(SSL_CTX_new(TLS_client_method())) {}

  void use(const TestSvid& svid) {
    const auto chain = parse_certificates_pem(svid.chain_pem, 8);
    const BioPtr key(BIO_new_mem_buf(svid.key_pem.data(), static_cast<int>(svid.key_pem.size())));
    const KeyPtr parsed(PEM_read_bio_PrivateKey(key.get(), nullptr, nullptr, nullptr));
    ASSERT_EQ(SSL_CTX_use_certificate(ctx_.get(), chain->front().get()), 1);
    ASSERT_EQ(SSL_CTX_use_PrivateKey(ctx_.get(), parsed.get()), 1);
    for (std::size_t i = 1; i < chain->size(); ++i) SSL_CTX_add1_chain_cert(ctx_.get(), (*chain)[i].get());
  }
  void offer(const std::string& alpn) {
    SSL_CTX_set_alpn_protos(ctx_.get(), reinterpret_cast<const unsigned char*>(alpn.data()), static_cast<unsigned>(alpn.size()));
  }
  SSL_CTX* ctx() { return ctx_.get(); }
  // The server's end of a connection with it.
  HandshakeFailure refused_by(const TlsContext& server, std::string* seen_by_client = nullptr) {
    SslPtr client(SSL_new(ctx_.get()));
    SslPtr ssl = server.new_server(false);
    BIO* a = nullptr;
    BIO* b = nullptr;
    BIO_new_bio_pair(&a, 1U << 16, &b, 1U << 16);
    SSL_set_bio(client.get(), a, a);
    SSL_set_bio(ssl.get(), b, b);
    SSL_set_connect_state(client.get());
    HandshakeFailure failure;
    for (int turn = 0; turn < 5; ++turn) {
      ERR_clear_error();
      char byte = 0;
      if (SSL_do_handshake(client.get()) == 1) SSL_read(client.get(), &byte, 1);
      if (seen_by_client != nullptr && ERR_peek_error() != 0) *seen_by_client = openssl_error("").message;
      ERR_clear_error();
      const int done = SSL_do_handshake(ssl.get());
      EXPECT_NE(done, 1) << "the server took it";
      if (done == 1) break;
      if (SSL_get_error(ssl.get(), done) == SSL_ERROR_SSL) {
        failure = TlsContext::handshake_failure(ssl.get());
        if (done < 0 && SSL_do_handshake(client.get()) == 1) SSL_read(client.get(), &byte, 1);
        if (seen_by_client != nullptr && ERR_peek_error() != 0) *seen_by_client = openssl_error("").message;
        break;
      }
    }
    EXPECT_EQ(TlsContext::peer_identity(ssl.get()), nullptr);
    return failure;
  }

 private:
  SslCtxPtr ctx_;
};

const std::string postern_1 = "\x09postern/1";

class TlsHostile : public Tls {
 protected:
  TlsHostile() { stranger.offer(postern_1); }

  CertificateError error_for(const TestSvid& svid, const char* alert) {
    stranger.use(svid);
    std::string seen;
    const HandshakeFailure failure = stranger.refused_by(server, &seen);
    EXPECT_EQ(failure.kind, Kind::identity_rejected);
    EXPECT_THAT(seen, HasSubstr(alert));
    EXPECT_EQ(server_sessions->server_size(), 0U);
    return failure.certificate;
  }

  TlsContext server = make(context(server_id), server_sessions);
  Stranger stranger;
};

TEST_F(TlsHostile, NoCertificate) {
  std::string seen;
  const HandshakeFailure failure = stranger.refused_by(server, &seen);
  EXPECT_EQ(failure.kind, Kind::certificate_required);
  EXPECT_EQ(failure.certificate, CertificateError::not_presented);
  EXPECT_THAT(seen, HasSubstr("certificate required"));
}

TEST_F(TlsHostile, OtherAuthority) {
  EXPECT_EQ(error_for(TestAuthority::root("other CA").issue(client_id), "unknown ca"), CertificateError::untrusted);
}

TEST_F(TlsHostile, OtherTrustDomain) {
  EXPECT_EQ(error_for(root.issue("spiffe://example.com/a"), "unknown ca"), CertificateError::unknown_trust_domain);
}

TEST_F(TlsHostile, Expired) {
  SvidOptions options;
  options.uris = {client_id};
  options.not_before_offset = seconds(-7200);
  options.ttl = seconds(-3600);
  EXPECT_EQ(error_for(root.issue(options), "certificate expired"), CertificateError::expired);
}

TEST_F(TlsHostile, NotYetValid) {
  SvidOptions options;
  options.uris = {client_id};
  options.not_before_offset = seconds(1800);
  EXPECT_EQ(error_for(root.issue(options), "bad certificate"), CertificateError::not_yet_valid);
}

TEST_F(TlsHostile, TwoUriSans) {
  SvidOptions options;
  options.uris = {client_id, server_id};
  EXPECT_EQ(error_for(root.issue(options), "bad certificate"), CertificateError::several_uri_sans);
}

TEST_F(TlsHostile, NoSan) { EXPECT_EQ(error_for(root.issue(SvidOptions{}), "bad certificate"), CertificateError::no_uri_san); }

TEST_F(TlsHostile, CaLeaf) {
  SvidOptions options;
  options.uris = {client_id};
  options.ca = true;
  EXPECT_EQ(error_for(root.issue(options), "bad certificate"), CertificateError::leaf_is_ca);
}

TEST_F(TlsHostile, NoAlpn) {
  Stranger silent;
  silent.use(root.issue(client_id));
  std::string seen;
  EXPECT_EQ(silent.refused_by(server, &seen).kind, Kind::alpn_mismatch);
  EXPECT_THAT(seen, HasSubstr("no application protocol"));
}

TEST_F(TlsHostile, OtherAlpn) {
  stranger.offer("\x02h2\x09postern/2");
  stranger.use(root.issue(client_id));
  std::string seen;
  EXPECT_EQ(stranger.refused_by(server, &seen).kind, Kind::alpn_mismatch);
  EXPECT_THAT(seen, HasSubstr("no application protocol"));
}

TEST_F(TlsHostile, Tls12) {
  SSL_CTX_set_max_proto_version(stranger.ctx(), TLS1_2_VERSION);
  stranger.use(root.issue(client_id));
  EXPECT_EQ(stranger.refused_by(server).kind, Kind::protocol);
}

TEST_F(Tls, PlainSpiffeGoesOnWithoutAlpn) {
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(context(server_id), server_sessions);
  for (const bool resumed : {false, true}) {
    Pair pair(client.new_client(destination, false), server.new_server(true));
    ASSERT_TRUE(pair.handshake());
    EXPECT_FALSE(TlsContext::used_postern_alpn(pair.server.get()));
    EXPECT_FALSE(TlsContext::used_postern_alpn(pair.client.get()));
    EXPECT_EQ(TlsContext::facts(pair.server.get()).resumed, resumed);
  }
  Pair ours(client.new_client(destination, true), server.new_server(true));
  ASSERT_TRUE(ours.handshake());
  EXPECT_TRUE(TlsContext::used_postern_alpn(ours.server.get()));
  Pair plain_to_strict(client.new_client(destination, false), server.new_server(false));
  EXPECT_FALSE(plain_to_strict.handshake());
  EXPECT_EQ(plain_to_strict.server_failure.kind, Kind::alpn_mismatch);
  EXPECT_EQ(plain_to_strict.client_failure.kind, Kind::alpn_mismatch);
}

TEST_F(Tls, TheClientRefusesAServerOfAnotherAuthority) {
  const TestAuthority other = TestAuthority::root("other CA");
  const TlsContext client = make(context(client_id), client_sessions);
  const TlsContext server = make(make_context(other.issue(server_id), other));
  Pair pair(client.new_client(destination, true), server.new_server(false));
  EXPECT_FALSE(pair.handshake());
  EXPECT_EQ(pair.client_failure.kind, Kind::identity_rejected);
  EXPECT_EQ(pair.client_failure.certificate, CertificateError::untrusted);
  EXPECT_EQ(TlsContext::verify_error(pair.client.get()), CertificateError::untrusted);
  EXPECT_EQ(pair.server_failure.kind, Kind::refused_by_peer);
  EXPECT_EQ(TlsContext::peer_identity(pair.client.get()), nullptr);
  EXPECT_EQ(client_sessions->client_size(), 0U);
}

TEST_F(Tls, NotTlsAtAll) {
  const TlsContext server = make(context(server_id));
  SslPtr ssl = server.new_server(false);
  BIO* const in = BIO_new(BIO_s_mem());
  BIO_write(in, "GET / HTTP/1.1\r\n\r\n", 18);
  SSL_set_bio(ssl.get(), in, BIO_new(BIO_s_mem()));
  EXPECT_LT(SSL_do_handshake(ssl.get()), 0);
  EXPECT_EQ(TlsContext::handshake_failure(ssl.get()).kind, Kind::protocol);
}

TEST_F(Tls, UnknownGroupIsAnErrorExceptMlKem) {
  TlsSettings settings;
  settings.groups = "X25519MLKEM768:P-256";
  EXPECT_TRUE(TlsContext::make(context(server_id), settings, nullptr, 1));
  settings.groups = "X25519:secp256r2";
  const auto made = TlsContext::make(context(server_id), settings, nullptr, 1);
  ASSERT_FALSE(made);
  EXPECT_THAT(made.error().message, HasSubstr("secp256r2"));
  for (const char* empty : {"", ":", "X25519::P-256"}) {
    settings.groups = empty;
    EXPECT_FALSE(TlsContext::make(context(server_id), settings, nullptr, 1)) << empty;
  }
}

// Workers have a TlsContext each and one cache for all.
TEST_F(Tls, WorkersShareTheCacheOnly) {
  const auto client_identity = context(client_id);
  const auto server_identity = context(server_id);
  {
    const TlsContext client = make(client_identity, client_sessions);
    const TlsContext server = make(server_identity, server_sessions);
    Pair pair(client.new_client(destination, true), server.new_server(false));
    ASSERT_TRUE(pair.handshake());
  }
  std::vector<std::thread> workers;
  for (int t = 0; t < 3; ++t) {
    workers.emplace_back([&, t] {
      const TlsContext client = make(client_identity, client_sessions);
      const TlsContext server = make(server_identity, server_sessions);
      for (int i = 0; i < 20; ++i) {
        const SocketAddress to{destination.address, Port{static_cast<std::uint16_t>(i % 4 == 0 ? 9000 + i + t : 8080)}};
        Pair pair(client.new_client(to, true), server.new_server(false));
        EXPECT_TRUE(pair.handshake());
        EXPECT_EQ(text(TlsContext::peer_identity(pair.server.get())), client_id);
        if (to == destination) {
          EXPECT_TRUE(TlsContext::facts(pair.server.get()).resumed);
        }
      }
    });
  }
  for (std::thread& worker : workers) worker.join();
}

}  // namespace
}  // namespace postern
