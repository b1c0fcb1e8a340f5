// The client against a replica made for the test: real TLS and WebSocket frames, answers written by hand.
#include "proxy/policy_client.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <openssl/evp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <condition_variable>
#include <csignal>
#include <filesystem>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <thread>

#include "authz/compiler.hpp"
#include "tests/kit/test_authority.hpp"
#include "tests/unit/authz/cluster_builder.hpp"

namespace postern {
namespace {

using test::ip;
using test::key;
using testing::HasSubstr;
using namespace std::chrono_literals;

constexpr int patience_ms = 10'000;

bool wait_for(const std::function<bool()>& condition) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(patience_ms);
  while (!condition() && std::chrono::steady_clock::now() < until) std::this_thread::yield();
  return condition();
}

// The replica's end of one stream; everything blocks, within limits.
class ReplicaStream {
 public:
  ReplicaStream(int fd, SslPtr ssl) : fd_(fd), ssl_(std::move(ssl)) {
    const timeval timeout{patience_ms / 1000, 0};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    SSL_set_fd(ssl_.get(), fd_);
    SSL_clear_mode(ssl_.get(), SSL_MODE_ENABLE_PARTIAL_WRITE);
    SSL_set_mode(ssl_.get(), SSL_MODE_AUTO_RETRY);
    shaken_ = SSL_accept(ssl_.get()) == 1;
  }
  ~ReplicaStream() { ::close(fd_); }
  bool shaken() const { return shaken_; }

  // The WebSocket's opening handshake (RFC 6455 section 4.2.2). False: it never came.
  bool upgrade() {
    std::string head;
    char byte = 0;
    while (!head.ends_with("\r\n\r\n")) {
      if (SSL_read(ssl_.get(), &byte, 1) != 1) return false;
      head += byte;
    }
    const std::string name = "Sec-WebSocket-Key: ";
    const auto at = head.find(name) + name.size();
    const std::string key = head.substr(at, head.find('\r', at) - at) + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    std::array<unsigned char, 20> digest{};
    EVP_Digest(key.data(), key.size(), digest.data(), nullptr, EVP_sha1(), nullptr);
    std::array<unsigned char, 32> base64{};
    EVP_EncodeBlock(base64.data(), digest.data(), digest.size());
    write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
          std::string(reinterpret_cast<char*>(base64.data())) + "\r\n\r\n");
    return true;
  }

  // The next message; nothing: the stream has ended.
  std::optional<SidecarMessage> receive() {
    while (true) {
      const std::string head = read(2);
      if (head.empty()) return std::nullopt;
      std::size_t size = static_cast<unsigned char>(head[1]) & 127U;
      const int more = size == 126 ? 2 : size == 127 ? 8 : 0;
      if (more > 0) size = 0;
      for (const char byte : read(static_cast<std::size_t>(more))) size = (size << 8U) | static_cast<unsigned char>(byte);
      const std::string mask = read(4);
      std::string text = read(size);
      for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(text[i] ^ mask[i % 4]);
      const int opcode = head[0] & 15;
      if (opcode == 8) return std::nullopt;
      if (opcode == 9) frame('\x8A', text);
      if (opcode != 1) continue;
      auto message = decode_sidecar_message(text);
      EXPECT_TRUE(message) << message.error().text();
      if (!message) return std::nullopt;
      return *message;
    }
  }
  template <class Message>
  Message expect() {
    const auto message = receive();
    const Message* wanted = message ? std::get_if<Message>(&*message) : nullptr;
    EXPECT_NE(wanted, nullptr) << "another message, or the end";
    return wanted != nullptr ? *wanted : Message{};
  }
  void send(const ControlMessage& message) { frame('\x81', encode(message)); }

 private:
  void frame(char first, const std::string& text) {
    std::string head(1, first);
    if (text.size() < 126) {
      head += static_cast<char>(text.size());
    } else {
      const bool is_long = text.size() >= 65536;  // the shortest form is asked for (RFC 6455 section 5.2)
      head += is_long ? '\x7F' : '\x7E';
      for (int shift = is_long ? 56 : 8; shift >= 0; shift -= 8)
        head += static_cast<char>((text.size() >> static_cast<unsigned>(shift)) & 255U);
    }
    write(head + text);
  }
  void write(const std::string& text) { SSL_write(ssl_.get(), text.data(), static_cast<int>(text.size())); }
  std::string read(std::size_t count) {
    std::string out(count, '\0');
    std::size_t got = 0;
    while (got < count) {
      const int n = SSL_read(ssl_.get(), out.data() + got, static_cast<int>(count - got));
      if (n <= 0) return {};
      got += static_cast<std::size_t>(n);
    }
    return out;
  }

  int fd_;
  SslPtr ssl_;
  bool shaken_ = false;
};

class Receiver final : public PolicyReceiver {
 public:
  void enforce(std::shared_ptr<const PolicySnapshot> snapshot, std::function<void()> enforced) override {
    const std::lock_guard lock(mutex_);
    snapshots_.push_back(std::move(snapshot));
    if (at_once) return enforced();
    waiting_ = std::move(enforced);
    changed_.notify_all();
  }
  void adopt_roots(NumberedBundle roots, std::function<void()> adopted) override {
    const std::lock_guard lock(mutex_);
    roots_ = std::move(roots);
    roots_adopted_ = std::move(adopted);
    changed_.notify_all();
  }
  void adopt_federated(FederatedBundles bundles, std::function<void()> adopted) override {
    const std::lock_guard lock(mutex_);
    federated_ = std::move(bundles);
    federated_adopted_ = std::move(adopted);
    changed_.notify_all();
  }
  void policy_refused(const std::string&) override {}
  void peers_in_use(std::function<void(AddressSet)> answer) override { answer({}); }

  std::size_t count() {
    const std::lock_guard lock(mutex_);
    return snapshots_.size();
  }
  void finish() {
    std::unique_lock lock(mutex_);
    ASSERT_TRUE(changed_.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] { return waiting_ != nullptr; }));
    waiting_();
  }
  // Waits for roots, and says that they are adopted.
  NumberedBundle finish_roots() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] { return roots_adopted_ != nullptr; });
    if (roots_adopted_) roots_adopted_();
    return roots_;
  }
  // The same of the bundles of other trust domains; nothing: none have come.
  std::optional<FederatedBundles> finish_federated() {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, std::chrono::milliseconds(patience_ms), [&] { return federated_adopted_ != nullptr; });
    if (!federated_adopted_) return std::nullopt;
    std::exchange(federated_adopted_, nullptr)();
    return federated_;
  }
  bool at_once = true;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<const PolicySnapshot>> snapshots_;
  std::function<void()> waiting_;
  FederatedBundles federated_;
  std::function<void()> federated_adopted_;
  NumberedBundle roots_;
  std::function<void()> roots_adopted_;
};

class PolicyClientTest : public testing::Test {
 protected:
  PolicyClientTest() {
    std::signal(SIGPIPE, SIG_IGN);  // as the program does
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    bind(listener, reinterpret_cast<sockaddr*>(&address), size);
    listen(listener, 16);
    getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
    config.control.addresses = {"127.0.0.1:" + std::to_string(ntohs(address.sin_port))};
    config.control.state_dir = testing::TempDir() + "policy-client-" + std::to_string(getpid());
    std::filesystem::create_directory(config.control.state_dir);
    config.workload = {"default", "web"};
    config.mesh.trust_domain = *TrustDomain::parse("example.org");
    cluster.ns("default");
    cluster.pod("default/web", "10.0.0.1", {{"app", "web"}});
    cluster.pod("default/api", "10.0.0.2", {{"app", "api"}});
  }
  ~PolicyClientTest() override {
    client.reset();
    close(listener);
    std::filesystem::remove_all(config.control.state_dir);
  }

  std::shared_ptr<const X509Context> svid(const std::string& id) const { return test::make_context(authority.issue(id), authority); }
  void start() {
    client = std::move(PolicyClient::make(config, receiver, log).value());
    client->adopt_identity(svid("spiffe://example.org/ns/default/sa/default/pod/web/uid-web"));
  }
  std::unique_ptr<ReplicaStream> accept(const std::string& id = "spiffe://example.org/postern/control") {
    pollfd wait{listener, POLLIN, 0};
    if (poll(&wait, 1, patience_ms) != 1) return nullptr;
    TlsSettings settings;
    settings.alpn = control_alpn;
    contexts.push_back(std::make_unique<TlsContext>(std::move(TlsContext::make(svid(id), settings, nullptr, 1).value())));
    return std::make_unique<ReplicaStream>(::accept(listener, nullptr, nullptr), contexts.back()->new_server(false));
  }
  std::unique_ptr<ReplicaStream> accept_upgraded() {
    auto stream = accept();
    if (stream == nullptr || !stream->shaken() || !stream->upgrade()) throw std::runtime_error("no stream");
    return stream;
  }

  Update update(std::uint64_t nonce, std::uint64_t version, std::vector<const char*> pods = {"default/web"}) const {
    Update out;
    out.nonce = nonce;
    out.mark = {"e1", {{"pods", version}}};
    const auto add = [&](std::string name, std::string body) {
      std::string hash = std::to_string(std::hash<std::string>{}(body));
      out.resources.push_back(std::make_shared<const Resource>(Resource{std::move(name), std::move(hash), std::move(body)}));
    };
    add("settings", encode(config.mesh));
    add("allow-list", encode(AllowListRecord{}));
    for (const char* pod : pods) {
      add(pod_resource_name(key(pod)), encode(record_of(cluster.view.pods.at(key(pod)), cluster.view, MtlsMode::strict)));
    }
    return out;
  }

  Config config;
  Log log{LogLevel::error, -1};
  Receiver receiver;
  test::TestAuthority authority = test::TestAuthority::root("root");
  test::ClusterBuilder cluster;
  std::vector<std::unique_ptr<TlsContext>> contexts;
  std::unique_ptr<PolicyClient> client;
  int listener = -1;
};

TEST_F(PolicyClientTest, AcknowledgesOnlyWhatIsEnforced) {
  receiver.at_once = false;
  start();
  const auto stream = accept_upgraded();
  EXPECT_TRUE(stream->expect<Hello>().mark.epoch.empty());
  stream->send(update(1, 10));
  // A question that is asked meanwhile comes before the acknowledgement: that has not been sent.
  ASSERT_TRUE(wait_for([&] { return receiver.count() > 0; }));
  client->lookups().ask(
      ip("10.0.0.9"), [] {}, Lookups::Clock::now());
  EXPECT_EQ(stream->expect<Lookup>().address, ip("10.0.0.9"));
  EXPECT_FALSE(client->facts().connected);
  receiver.finish();
  EXPECT_EQ(stream->expect<Ack>().nonce, 1U);
}

TEST_F(PolicyClientTest, AcknowledgesRootsOnlyWhenTheyAreAdopted) {
  start();
  const auto stream = accept_upgraded();
  stream->expect<Hello>();
  Update with_roots = update(1, 10);
  const std::string body = encode_trust_bundle(7, authority.certificate_pem());
  with_roots.resources.push_back(std::make_shared<const Resource>(Resource{std::string(trust_bundle_name), "h", body}));
  stream->send(with_roots);
  ASSERT_TRUE(wait_for([&] { return receiver.count() > 0; }));
  client->lookups().ask(
      ip("10.0.0.9"), [] {}, Lookups::Clock::now());
  stream->expect<Lookup>();
  EXPECT_FALSE(client->facts().connected) << "the policy is in force, the roots are not";
  EXPECT_EQ(receiver.finish_roots(), (NumberedBundle{7, authority.certificate_pem()}));
  EXPECT_EQ(stream->expect<Ack>().nonce, 1U);
}

TEST_F(PolicyClientTest, RefusesRootsThatCannotBeReadWithTheWholeUpdate) {
  start();
  const auto stream = accept_upgraded();
  stream->expect<Hello>();
  Update bad = update(1, 10);
  const std::string body = encode_trust_bundle(7, "no certificate");
  bad.resources.push_back(std::make_shared<const Resource>(Resource{std::string(trust_bundle_name), "h", body}));
  stream->send(bad);
  EXPECT_THAT(stream->expect<Nack>().reason, HasSubstr("trust-bundle"));
  EXPECT_EQ(receiver.count(), 0U);
}

TEST_F(PolicyClientTest, AcknowledgesBundlesOfOtherTrustDomainsOnlyWhenTheyAreAdopted) {
  start();
  const auto stream = accept_upgraded();
  stream->expect<Hello>();
  const FederatedBundleRecord record{7, authority.certificate_pem()};
  Update with_bundle = update(1, 10);
  with_bundle.resources.push_back(std::make_shared<const Resource>(Resource{"federated-bundle/partner.example", "h", encode(record)}));
  stream->send(with_bundle);
  EXPECT_EQ(receiver.finish_federated(), (FederatedBundles{{"partner.example", record}}));
  EXPECT_EQ(stream->expect<Ack>().nonce, 1U);
  Update without = update(2, 11);
  without.resources.clear();
  without.removed = {"federated-bundle/partner.example"};
  stream->send(without);
  EXPECT_EQ(receiver.finish_federated(), FederatedBundles{});
  EXPECT_EQ(stream->expect<Ack>().nonce, 2U);
}

TEST_F(PolicyClientTest, RefusesABundleOfItsOwnTrustDomainOrThatCannotBeRead) {
  start();
  const auto stream = accept_upgraded();
  stream->expect<Hello>();
  std::uint64_t nonce = 0;
  for (const auto& [domain, roots] : {std::pair(std::string("example.org"), authority.certificate_pem()),
                                      std::pair(std::string("partner.example"), std::string("nonsense"))}) {
    const std::string name = "federated-bundle/" + domain;
    Update bad = update(++nonce, 10);
    bad.resources.push_back(std::make_shared<const Resource>(Resource{name, "h", encode(FederatedBundleRecord{1, roots})}));
    stream->send(bad);
    EXPECT_THAT(stream->expect<Nack>().reason, HasSubstr(name));
  }
  EXPECT_EQ(receiver.count(), 0U);
}

TEST_F(PolicyClientTest, SaysOnTheNextStreamWhatItHas) {
  start();
  {
    const auto stream = accept_upgraded();
    stream->expect<Hello>();
    stream->send(update(1, 10));
    stream->expect<Ack>();
  }
  const auto stream = accept_upgraded();
  const Hello hello = stream->expect<Hello>();
  EXPECT_EQ(hello.mark, update(1, 10).mark);
  EXPECT_EQ(hello.have.size(), 3U);
  Update nothing;
  nothing.nonce = 1;
  nothing.mark = {"e1", {{"pods", 12}}};
  stream->send(nothing);
  EXPECT_EQ(stream->expect<Ack>().nonce, 1U);
  EXPECT_EQ(receiver.count(), 1U) << "nothing has changed, so nothing is enforced anew";
}

TEST_F(PolicyClientTest, NeverTakesAnOlderState) {
  start();
  {
    const auto stream = accept_upgraded();
    stream->expect<Hello>();
    stream->send(update(1, 10));
    stream->expect<Ack>();
  }
  {
    // A replica that lags behind and does not say so.
    const auto stream = accept_upgraded();
    stream->expect<Hello>();
    stream->send(update(1, 9, {"default/web", "default/api"}));
    EXPECT_THAT(stream->expect<Nack>().reason, HasSubstr("older than what is enforced"));
    EXPECT_FALSE(stream->receive()) << "and another replica is tried";
  }
  EXPECT_EQ(receiver.count(), 1U);
  EXPECT_EQ(accept_upgraded()->expect<Hello>().mark, update(1, 10).mark);
}

TEST_F(PolicyClientTest, RefusesABadUpdateWholeAndGoesOn) {
  start();
  const auto stream = accept_upgraded();
  stream->expect<Hello>();
  Update bad = update(1, 10);
  bad.resources.push_back(std::make_shared<const Resource>(Resource{"pod/default/api", "h", R"({"surprise":1})"}));
  stream->send(bad);
  const Nack nack = stream->expect<Nack>();
  EXPECT_EQ(nack.nonce, 1U);
  EXPECT_THAT(nack.reason, HasSubstr("pod/default/api"));
  EXPECT_EQ(receiver.count(), 0U);
  stream->send(update(2, 11));
  EXPECT_EQ(stream->expect<Ack>().nonce, 2U);
  EXPECT_EQ(receiver.count(), 1U);
}

TEST_F(PolicyClientTest, SaysNothingToSomebodyElse) {
  start();
  const auto impostor = accept("spiffe://example.org/ns/default/sa/default/pod/api/uid-api");
  ASSERT_NE(impostor, nullptr);
  EXPECT_FALSE(impostor->upgrade()) << "not one byte";
}

TEST_F(PolicyClientTest, ARestartedSidecarGoesOnFromItsStateFile) {
  start();
  {
    const auto stream = accept_upgraded();
    stream->expect<Hello>();
    stream->send(update(1, 10));
    stream->expect<Ack>();
    client.reset();
  }
  start();
  EXPECT_EQ(receiver.count(), 2U) << "in force before the control plane is reached";
  EXPECT_EQ(accept_upgraded()->expect<Hello>().mark, update(1, 10).mark);
}

TEST_F(PolicyClientTest, LooksUpOnceForAllWhoAsk) {
  start();
  const auto stream = accept_upgraded();
  stream->expect<Hello>();
  stream->send(update(1, 10));
  stream->expect<Ack>();
  std::atomic<int> answered{0};
  for (int i = 0; i < 3; ++i)
    client->lookups().ask(
        ip("10.0.0.2"), [&] { ++answered; }, Lookups::Clock::now());
  const Lookup lookup = stream->expect<Lookup>();
  stream->send(update(2, 11, {"default/web", "default/api"}));
  stream->expect<Ack>();
  EXPECT_EQ(answered, 0);
  stream->send(LookupAnswer{lookup.id, true, ""});
  EXPECT_TRUE(wait_for([&] { return answered == 3; }));
  EXPECT_EQ(receiver.count(), 2U);
}

}  // namespace
}  // namespace postern
