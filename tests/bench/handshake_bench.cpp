// What lending the private key to each connection for its handshake costs (docs/identity-keys.md): handshake_bench prints microseconds of
// CPU time per full mutual handshake, both ends, beside the same contexts with the key in the SSL_CTX, as most programs keep it. The two
// take turns.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <vector>

#include "certs/tls_context.hpp"
#include "tests/kit/test_authority.hpp"
#include "tests/unit/certs/tls_pair.hpp"

namespace postern {
namespace {

constexpr int rounds = 25;
constexpr int handshakes = 300;  // in a round

TlsContext context_of(const std::shared_ptr<const X509Context>& identity) {
  TlsSettings settings;
  settings.resumption = false;
  return TlsContext::make(identity, settings, nullptr, 1).value();
}

// The key and the chain go into the SSL_CTX, once; nothing is lent and nothing is given back.
TlsContext straightforward(const std::shared_ptr<const X509Context>& identity) {
  TlsContext context = context_of(identity);
  const SslPtr any = context.new_server(false);
  SSL_CTX* const ctx = SSL_get_SSL_CTX(any.get());
  bool set =
      SSL_CTX_use_certificate(ctx, identity->svid.chain.front().get()) == 1 && SSL_CTX_use_PrivateKey(ctx, identity->svid.key.get()) == 1;
  for (std::size_t i = 1; i < identity->svid.chain.size(); ++i)
    set = set && SSL_CTX_add1_chain_cert(ctx, identity->svid.chain[i].get()) == 1;
  if (!set) std::abort();
  SSL_CTX_set_cert_cb(ctx, nullptr, nullptr);
  SSL_CTX_set_info_callback(ctx, nullptr);
  return context;
}

double microseconds_each(const TlsContext& context, const SocketAddress& to) {
  const std::clock_t start = std::clock();
  for (int i = 0; i < handshakes; ++i) {
    test::Pair pair(context.new_client(to, true), context.new_server(false));
    if (!pair.handshake()) std::abort();
  }
  return static_cast<double>(std::clock() - start) * (1e6 / CLOCKS_PER_SEC) / handshakes;
}

void show(const char* what, std::vector<double> values, const char* unit) {
  std::sort(values.begin(), values.end());
  std::printf("%-32s min %8.3f  median %8.3f  max %8.3f %s\n", what, values.front(), values[values.size() / 2], values.back(), unit);
}

int run() {
  const auto root = test::TestAuthority::root("root");
  const auto identity =
      test::make_context(root.intermediate("issuer").issue("spiffe://example.org/ns/default/sa/default/pod/web/u-web"), root);
  const TlsContext lent = context_of(identity);
  const TlsContext kept = straightforward(identity);
  const SocketAddress to{IpAddress::v4({10, 0, 0, 1}), Port{443}};
  microseconds_each(lent, to);
  microseconds_each(kept, to);
  std::array<std::vector<double>, 3> seen;
  for (int round = 0; round < rounds; ++round) {
    const bool lent_first = round % 2 == 0;
    const double first = microseconds_each(lent_first ? lent : kept, to);
    const double second = microseconds_each(lent_first ? kept : lent, to);
    seen[0].push_back(lent_first ? first : second);
    seen[1].push_back(lent_first ? second : first);
    seen[2].push_back(seen[0].back() / seen[1].back());
  }
  std::printf("%d rounds of %d full handshakes, both ends\n", rounds, handshakes);
  show("key lent to each connection", seen[0], "us");
  show("key in the SSL_CTX", seen[1], "us");
  show("ratio", seen[2], "");
  return 0;
}

}  // namespace
}  // namespace postern

int main() { return postern::run(); }
