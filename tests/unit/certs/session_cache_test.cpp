#include "certs/session_cache.hpp"

#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

namespace postern {
namespace {

using std::chrono::seconds;

const SystemTime now = SystemTime() + std::chrono::hours(1);
const SystemTime later = now + seconds(60);

// OpenSSL calls a session resumable once it has an ID.
SessionPtr session(const std::string& id = "id") {
  SessionPtr made(SSL_SESSION_new());
  SSL_SESSION_set1_id(made.get(), reinterpret_cast<const unsigned char*>(id.data()), static_cast<unsigned int>(id.size()));
  return made;
}

ClientSessionKey key(std::uint16_t port, std::uint64_t context = 1) { return {{IpAddress::v4({10, 0, 0, 1}), Port{port}}, context}; }

TEST(SessionCache, FindsByIdAsOftenAsAsked) {
  SessionCache cache;
  SessionPtr kept = session();
  const SSL_SESSION* raw = kept.get();
  cache.put_server("abc", std::move(kept), later);
  EXPECT_EQ(cache.find_server("abc", now).get(), raw);
  EXPECT_EQ(cache.find_server("abc", now).get(), raw);
  EXPECT_EQ(cache.find_server("abd", now), nullptr);
  cache.remove_server("abc");
  EXPECT_EQ(cache.find_server("abc", now), nullptr);
}

TEST(SessionCache, ForgetsWhatHasEnded) {
  SessionCache cache;
  cache.put_server("abc", session(), later);
  cache.put_client(key(80), session(), later);
  EXPECT_EQ(cache.find_server("abc", later), nullptr);
  EXPECT_EQ(cache.find_client(key(80), later), nullptr);
  EXPECT_EQ(cache.server_size() + cache.client_size(), 0U);
}

TEST(SessionCache, ClientKeysDoNotMix) {
  SessionCache cache;
  cache.put_client(key(80), session(), later);
  EXPECT_NE(cache.find_client(key(80), now), nullptr);
  EXPECT_EQ(cache.find_client(key(81), now), nullptr);
  EXPECT_EQ(cache.find_client(key(80, 2), now), nullptr);
}

TEST(SessionCache, TheNewestClientSessionStays) {
  SessionCache cache;
  SessionPtr first = session();
  const SessionPtr same = share(first.get());
  cache.put_client(key(80), std::move(first), later);
  SessionPtr second = session();
  const SSL_SESSION* raw = second.get();
  cache.put_client(key(80), std::move(second), later);
  EXPECT_EQ(cache.find_client(key(80), now).get(), raw);
  // What replaced it is not removed on its behalf.
  cache.remove_client(key(80), same.get());
  EXPECT_EQ(cache.find_client(key(80), now).get(), raw);
  cache.remove_client(key(80), raw);
  EXPECT_EQ(cache.find_client(key(80), now), nullptr);
}

TEST(SessionCache, IsBoundedAndKeepsWhatIsUsed) {
  SessionCache cache(64, 64);
  cache.put_server("used", session(), later);
  for (int i = 0; i < 1000; ++i) {
    ASSERT_NE(cache.find_server("used", now), nullptr) << i;
    cache.put_server("other " + std::to_string(i), session(), later);
    cache.put_client(key(static_cast<std::uint16_t>(i)), session(), later);
  }
  EXPECT_LE(cache.server_size(), 64U);
  EXPECT_LE(cache.client_size(), 64U);
}

TEST(SessionCache, ClearForgetsBothEnds) {
  SessionCache cache;
  cache.put_server("abc", session(), later);
  cache.put_client(key(80), session(), later);
  cache.clear();
  EXPECT_EQ(cache.server_size() + cache.client_size(), 0U);
}

TEST(SessionCache, ManyThreads) {
  SessionCache cache(32, 32);
  std::vector<std::thread> threads;
  for (unsigned t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (unsigned i = 0; i < 3000; ++i) {
        const std::string id = std::to_string((i * 7 + t) % 97);
        const auto port = static_cast<std::uint16_t>((i + t) % 61);
        cache.put_server(id, session(id), later);
        cache.put_client(key(port), session(id), later);
        const SessionPtr found = cache.find_server(id, now);
        if (found) {
          EXPECT_EQ(SSL_SESSION_is_resumable(found.get()), 1);
        }
        const SessionPtr client = cache.find_client(key(port), now);
        if (i % 5 == 0) cache.remove_server(id);
        if (i % 7 == 0) cache.remove_client(key(port), client.get());
        if (i % 1000 == 0) cache.clear();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_LE(cache.server_size(), 32U);
  EXPECT_LE(cache.client_size(), 32U);
}

}  // namespace
}  // namespace postern
