#include "certs/ticket_keys.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/kit/test_authority.hpp"
#include "tests/unit/certs/tls_pair.hpp"

namespace postern {
namespace {

using std::chrono::seconds;
using std::chrono::system_clock;
using test::Pair;
using test::SvidOptions;
using test::TestAuthority;
using test::TestSvid;

constexpr const char* client_id = "spiffe://example.org/ns/shop/sa/web/pod/web-0/u1";
constexpr const char* server_id = "spiffe://example.org/postern/control";
const SocketAddress destination{IpAddress::v4({10, 0, 0, 2}), Port{15010}};

TEST(TicketContentText, IsReadAsItWasWritten) {
  const TicketContent content{{SpiffeId::parse(client_id).value(), "0A1B", SystemTime(seconds(1'900'000'000))},
                              SystemTime(seconds(1'800'000'000))};
  const auto read = decode_ticket_content(encode_ticket_content(content));
  ASSERT_TRUE(read);
  EXPECT_EQ(read->peer.id, content.peer.id);
  EXPECT_EQ(read->peer.serial, "0A1B");
  EXPECT_EQ(read->peer.not_after, content.peer.not_after);
  EXPECT_EQ(read->ends, content.ends);
}

TEST(TicketContentText, AnythingElseIsNothing) {
  const std::string good = "postern-ticket/1\nspiffe://example.org/a\n0a\n1900000000\n1800000000";
  ASSERT_TRUE(decode_ticket_content(good));
  for (const std::string& bad :
       {std::string(), good + "\n", good.substr(1), good.substr(0, good.rfind('\n')), std::string("postern-ticket/1\nspiffe://\n0a\n1\n1"),
        std::string("postern-ticket/1\nspiffe://example.org/a\nxyz\n1\n1"),
        std::string("postern-ticket/1\nspiffe://example.org/a\n0a\n-1\n1"),
        std::string("postern-ticket/1\nspiffe://example.org/a\n0a\n1\n99999999999999999999")}) {
    EXPECT_FALSE(decode_ticket_content(bad)) << bad;
  }
}

// Servers that share ticket keys and nothing else, and clients that keep sessions.
class Tickets : public testing::Test {
 protected:
  std::shared_ptr<const X509Context> context(const char* id) { return make_context(root.issue(id), root); }
  TlsContext client_of(const std::shared_ptr<const X509Context>& identity) {
    TlsSettings settings;
    settings.alpn = control_alpn;
    return TlsContext::make(identity, settings, client_sessions, 1).value();
  }
  TlsContext server_of(std::vector<TicketKey> keys, std::size_t seals = 0, const char* id = server_id) {
    return server_of(context(id), std::move(keys), seals);
  }
  static TlsContext server_of(const std::shared_ptr<const X509Context>& identity, std::vector<TicketKey> keys, std::size_t seals = 0) {
    TlsSettings settings;
    settings.alpn = control_alpn;
    settings.ticket_keys = std::make_shared<const TicketKeys>(TicketKeys{std::move(keys), seals});
    return TlsContext::make(identity, settings, nullptr, 1).value();
  }
  static bool resumed(const Pair& pair) { return TlsContext::facts(pair.server.get()).resumed; }
  // Whether a handshake, which must succeed, resumes; at both ends, with the same peers as a full one.
  static bool resumes(const TlsContext& client, const TlsContext& server) {
    Pair pair(client.new_client(destination, true), server.new_server(false));
    EXPECT_TRUE(pair.handshake()) << pair.client_failure.detail << pair.server_failure.detail;
    const auto seen = TlsContext::peer_identity(pair.server.get());
    EXPECT_NE(seen, nullptr);
    if (seen == nullptr) return false;
    EXPECT_EQ(seen->id.text(), client_id);
    EXPECT_EQ(seen->serial, client.identity().svid.serial);
    EXPECT_EQ(seen->not_after, client.identity().svid.not_after);
    EXPECT_EQ(TlsContext::peer_identity(pair.client.get())->id, server.identity().svid.id);
    EXPECT_TRUE(TlsContext::used_postern_alpn(pair.server.get()));
    EXPECT_EQ(TlsContext::facts(pair.client.get()).resumed, resumed(pair));
    return resumed(pair);
  }

  TestAuthority root = TestAuthority::root("test CA");
  std::shared_ptr<SessionCache> client_sessions = std::make_shared<SessionCache>();
  TicketKey first = TicketKey::make().value();
  TicketKey second = TicketKey::make().value();
};

TEST_F(Tickets, AreTakenByEveryServerThatSharesTheKeys) {
  const TlsContext client = client_of(context(client_id));
  const TlsContext one = server_of({first});
  const TlsContext two = server_of({first});
  EXPECT_FALSE(resumes(client, one));
  EXPECT_TRUE(resumes(client, two));
  EXPECT_TRUE(resumes(client, one));
}

TEST_F(Tickets, OfAnUnknownKeyMeanAFullHandshake) {
  const TlsContext client = client_of(context(client_id));
  EXPECT_FALSE(resumes(client, server_of({first})));
  const TlsContext stranger = server_of({second});
  EXPECT_FALSE(resumes(client, stranger));
  EXPECT_TRUE(resumes(client, stranger));
}

TEST_F(Tickets, AreRenewedUnderTheKeyThatSealsNow) {
  const TlsContext client = client_of(context(client_id));
  EXPECT_FALSE(resumes(client, server_of({first})));
  EXPECT_TRUE(resumes(client, server_of({second, first})));
  EXPECT_TRUE(resumes(client, server_of({second}))) << "the second handshake has brought a ticket of the new key";
  EXPECT_TRUE(resumes(client, server_of({first, second}, 1))) << "a key that does not seal yet";
}

TEST_F(Tickets, AKeyOfTheSameNameOpensNothing) {
  const TlsContext client = client_of(context(client_id));
  EXPECT_FALSE(resumes(client, server_of({first})));
  second.name = first.name;
  EXPECT_FALSE(resumes(client, server_of({second})));
}

// The server itself looks at the end: a client that offers a session that has ended gets a full handshake.
TEST_F(Tickets, EndWithTheSvidThatTheyProved) {
  SvidOptions brief;
  brief.uris = {client_id};
  brief.ttl = seconds(1);
  const TlsContext short_lived = client_of(make_context(root.issue(brief), root));
  const TlsContext server = server_of({first});
  Pair pair(short_lived.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(pair.handshake());
  const SessionPtr kept = share(SSL_get_session(pair.client.get()));
  std::this_thread::sleep_until(short_lived.identity().svid.not_after + std::chrono::milliseconds(5));
  client_sessions->clear();
  const TlsContext renewed = client_of(context(client_id));
  Pair later(renewed.new_client(destination, true), server.new_server(false));
  SSL_SESSION_set_timeout(kept.get(), 3600);
  ASSERT_EQ(SSL_set_session(later.client.get(), kept.get()), 1);
  ASSERT_TRUE(later.handshake());
  EXPECT_FALSE(resumed(later));
  EXPECT_EQ(TlsContext::peer_identity(later.server.get())->serial, renewed.identity().svid.serial);
}

TEST_F(Tickets, AreVoidUnderAnotherBundle) {
  const TlsContext client = client_of(context(client_id));
  EXPECT_FALSE(resumes(client, server_of({first})));
  X509Context changed;
  const TestSvid svid = root.issue(server_id);
  changed.svid = parse_svid(svid.chain_pem, svid.key_pem).value();
  changed.bundles.add(TrustBundle::parse(root.certificate_pem() + TestAuthority::root("next CA").certificate_pem(),
                                         TrustDomain::parse("example.org").value())
                          .value());
  const TlsContext other = server_of(std::make_shared<const X509Context>(std::move(changed)), {first});
  EXPECT_FALSE(resumes(client, other));
  EXPECT_TRUE(resumes(client, other));
}

TEST_F(Tickets, AreVoidUnderAnotherIdentityOfTheServer) {
  const TlsContext client = client_of(context(client_id));
  EXPECT_FALSE(resumes(client, server_of({first})));
  EXPECT_FALSE(resumes(client, server_of({first}, 0, "spiffe://example.org/ns/a/sa/b/pod/c/u2")));
}

// Another client that got hold of a ticket has not the session's secret: nothing comes of it.
TEST_F(Tickets, AreNoUseWithoutTheSessionsSecret) {
  const TlsContext client = client_of(context(client_id));
  const TlsContext server = server_of({first});
  Pair pair(client.new_client(destination, true), server.new_server(false));
  ASSERT_TRUE(pair.handshake());
  const SessionPtr stolen(SSL_SESSION_dup(SSL_get_session(pair.client.get())));
  const std::array<unsigned char, 32> guess{1, 2, 3};
  ASSERT_EQ(SSL_SESSION_set1_master_key(stolen.get(), guess.data(), guess.size()), 1);
  client_sessions->clear();
  Pair thief(client.new_client(destination, true), server.new_server(false));
  ASSERT_EQ(SSL_set_session(thief.client.get(), stolen.get()), 1);
  EXPECT_FALSE(thief.handshake());
}

}  // namespace
}  // namespace postern
