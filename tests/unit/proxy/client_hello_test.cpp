#include "proxy/client_hello.hpp"

#include <gtest/gtest.h>
#include <openssl/err.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include "certs/openssl.hpp"

namespace postern {
namespace {

using Kind = ClientHelloResult::Kind;
using Buffer = std::vector<std::uint8_t>;

// The wire form of an ALPN list.
std::string alpn(std::initializer_list<std::string_view> names) {
  std::string wire;
  for (const auto name : names) {
    wire += static_cast<char>(name.size());
    wire += name;
  }
  return wire;
}

struct HelloOptions {
  std::string alpn = {};  // wire form; empty: no ALPN
  int max_version = 0;    // 0: OpenSSL's
  long max_fragment = 0;  // 0: OpenSSL's
};

// The first flight of OpenSSL as a client.
Buffer openssl_hello(const HelloOptions& options) {
  const SslCtxPtr context{SSL_CTX_new(TLS_client_method())};
  if (options.max_version != 0) {
    SSL_CTX_set_security_level(context.get(), 0);
    SSL_CTX_set_min_proto_version(context.get(), TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context.get(), options.max_version);
  }
  if (options.max_fragment != 0) SSL_CTX_set_max_send_fragment(context.get(), options.max_fragment);
  const SslPtr ssl{SSL_new(context.get())};
  BIO* out = BIO_new(BIO_s_mem());
  SSL_set_bio(ssl.get(), BIO_new(BIO_s_mem()), out);
  SSL_set_tlsext_host_name(ssl.get(), "backend.default.svc");
  if (!options.alpn.empty()) {
    SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char*>(options.alpn.data()), static_cast<unsigned>(options.alpn.size()));
  }
  SSL_connect(ssl.get());
  ERR_clear_error();
  char* data = nullptr;
  const long size = BIO_get_mem_data(out, &data);
  return Buffer(data, data + size);
}

Buffer postern_hello() { return openssl_hello({.alpn = alpn({"postern/1"})}); }

// The same handshake bytes in records of these sizes; the last size goes on to the end.
Buffer in_records_of(const Buffer& one_record, std::initializer_list<std::size_t> sizes) {
  Buffer out;
  auto size = sizes.begin();
  for (std::size_t at = 5; at < one_record.size();) {
    const std::size_t length = std::min(*size, one_record.size() - at);
    out.insert(out.end(), {22, 3, 1, static_cast<std::uint8_t>(length >> 8U), static_cast<std::uint8_t>(length)});
    const auto from = one_record.begin() + static_cast<std::ptrdiff_t>(at);
    out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(length));
    at += length;
    if (size + 1 != sizes.end()) ++size;
  }
  return out;
}

// Every prefix asks for more, until the whole says `expected`; and asks for no byte beyond the end.
void expect_at_every_prefix(const Buffer& hello, bool expected_postern) {
  for (std::size_t size = 0; size < hello.size(); ++size) {
    const auto result = parse_client_hello(std::span{hello}.first(size));
    ASSERT_EQ(result.kind, Kind::need_more) << "with " << size << " of " << hello.size() << " bytes";
    ASSERT_GT(result.needed, size);
    ASSERT_LE(result.needed, hello.size());
    ASSERT_FALSE(result.postern_alpn);
  }
  const auto result = parse_client_hello(hello);
  EXPECT_EQ(result.kind, Kind::tls);
  EXPECT_EQ(result.postern_alpn, expected_postern);
}

// How often a reader looks that waits for exactly what it was told.
std::size_t looks(const Buffer& hello) {
  std::size_t count = 1;
  for (std::size_t size = 0;; ++count) {
    const auto result = parse_client_hello(std::span{hello}.first(size));
    if (result.kind != Kind::need_more) return count;
    size = result.needed;
  }
}

void put16(Buffer& out, std::size_t value) {
  out.push_back(static_cast<std::uint8_t>(value >> 8U));
  out.push_back(static_cast<std::uint8_t>(value));
}

// A hand-made ClientHello around an extension block (with its length, when `with_extensions`).
Buffer made_hello(const Buffer& extensions, bool with_extensions = true) {
  Buffer body{3, 3};
  body.resize(2 + 32, 7);
  body.insert(body.end(), {0, 0, 2, 0x13, 0x01, 1, 0});
  if (with_extensions) {
    put16(body, extensions.size());
    body.insert(body.end(), extensions.begin(), extensions.end());
  }
  Buffer out{22, 3, 1};
  put16(out, body.size() + 4);
  out.insert(out.end(), {1, 0});
  put16(out, body.size());
  out.insert(out.end(), body.begin(), body.end());
  return out;
}

Buffer extension(unsigned type, std::string_view data) {
  Buffer out;
  put16(out, type);
  put16(out, data.size());
  out.insert(out.end(), data.begin(), data.end());
  return out;
}

Kind kind_of(const Buffer& bytes) { return parse_client_hello(bytes).kind; }
Kind kind_of(std::string_view bytes) { return kind_of(Buffer(bytes.begin(), bytes.end())); }

// Whatever the bytes: the answer for a prefix never contradicts the answer for more of them.
void expect_consistent(const Buffer& bytes) {
  ClientHelloResult settled;
  bool is_settled = false;
  std::size_t asked = 0;
  for (std::size_t size = 0; size <= bytes.size(); ++size) {
    const auto result = parse_client_hello(std::span{bytes}.first(size));
    if (is_settled) {
      ASSERT_EQ(result.kind, settled.kind);
      ASSERT_EQ(result.postern_alpn, settled.postern_alpn);
    } else if (result.kind == Kind::need_more) {
      ASSERT_GT(result.needed, size);
      ASSERT_LE(result.needed, max_client_hello_bytes);
      ASSERT_GE(result.needed, asked);
      asked = result.needed;
    } else {
      ASSERT_TRUE(result.kind == Kind::not_tls || size >= asked) << "known to be TLS before the bytes that were asked for";
      settled = result;
      is_settled = true;
    }
  }
}

TEST(ClientHello, OpensslWithOurAlpn) { expect_at_every_prefix(postern_hello(), true); }

TEST(ClientHello, OursAmongOthersAndInLaterVersions) {
  expect_at_every_prefix(openssl_hello({.alpn = alpn({"h2", "postern/7"})}), true);
  expect_at_every_prefix(openssl_hello({.alpn = alpn({"postern/", "http/1.1"})}), true);
}

TEST(ClientHello, OpensslWithoutOurAlpn) {
  expect_at_every_prefix(openssl_hello({}), false);
  expect_at_every_prefix(openssl_hello({.alpn = alpn({"h2", "http/1.1"})}), false);
  expect_at_every_prefix(openssl_hello({.alpn = alpn({"postern", "xpostern/1", "Postern/1"})}), false);
}

TEST(ClientHello, OlderVersions) { expect_at_every_prefix(openssl_hello({.max_version = TLS1_2_VERSION}), false); }

TEST(ClientHello, FragmentedByOpenssl) {
  std::string names = alpn({"postern/1"});
  for (int i = 0; i < 40; ++i) names += alpn({std::string_view{"an-application-protocol"}});
  const Buffer hello = openssl_hello({.alpn = names, .max_fragment = 512});
  ASSERT_GT(hello.size(), 1024U);
  ASSERT_EQ(hello[3] << 8U | hello[4], 512) << "OpenSSL did not fragment";
  expect_at_every_prefix(hello, true);
}

TEST(ClientHello, FragmentedAnyhow) {
  const Buffer hello = openssl_hello({.alpn = alpn({"postern/1"}), .max_version = TLS1_2_VERSION});
  ASSERT_LT(hello.size(), 400U);
  expect_at_every_prefix(in_records_of(hello, {1, 1, 1, 1, 400}), true);
  expect_at_every_prefix(in_records_of(hello, {2, 3, 20}), true);
  expect_at_every_prefix(in_records_of(hello, {5, 1, 40}), true);
  expect_at_every_prefix(in_records_of(hello, {100}), true);
  expect_at_every_prefix(in_records_of(postern_hello(), {255}), true);
}

TEST(ClientHello, TooManyRecordsAreNotTls) {
  const Buffer hello = openssl_hello({.alpn = alpn({"postern/1"}), .max_version = TLS1_2_VERSION});
  const std::size_t message = hello.size() - 5;
  const std::size_t fits = (message + max_client_hello_records - 1) / max_client_hello_records;
  EXPECT_EQ(kind_of(in_records_of(hello, {fits})), Kind::tls);
  EXPECT_EQ(kind_of(in_records_of(hello, {1})), Kind::not_tls);
  expect_consistent(in_records_of(hello, {1}));
}

TEST(ClientHello, AskingForWhatIsMissingTakesFewLooks) {
  EXPECT_LE(looks(postern_hello()), 11U);  // a byte at a time through the nine bytes of headers, then the rest at once
  const Buffer hello = postern_hello();
  EXPECT_EQ(parse_client_hello(std::span{hello}.first(9)).needed, hello.size());
}

TEST(ClientHello, MoreBytesAfterItDoNotMatter) {
  Buffer hello = postern_hello();
  hello.resize(hello.size() + 100'000, 0xAA);
  const auto result = parse_client_hello(hello);
  EXPECT_EQ(result.kind, Kind::tls);
  EXPECT_TRUE(result.postern_alpn);
}

TEST(ClientHello, OtherProtocolsAreKnownByTheirFirstBytes) {
  EXPECT_EQ(kind_of("G"), Kind::not_tls);
  EXPECT_EQ(kind_of("GET / HTTP/1.1\r\n"), Kind::not_tls);
  EXPECT_EQ(kind_of("*1\r\n$4\r\nPING\r\n"), Kind::not_tls);
  EXPECT_EQ(kind_of(Buffer{0, 0, 0, 8, 4, 0xD2, 0x16, 0x2F}), Kind::not_tls);  // PostgreSQL's SSLRequest
  EXPECT_EQ(kind_of(Buffer{0x80, 0x2E, 1, 3, 1}), Kind::not_tls);              // an SSL 2.0 hello
  EXPECT_EQ(kind_of(Buffer{22, 4}), Kind::not_tls);                            // no TLS major version
  EXPECT_EQ(kind_of(Buffer{22, 3, 1, 0, 0}), Kind::not_tls);                   // an empty fragment
  EXPECT_EQ(kind_of(Buffer{22, 3, 1, 0x40, 1}), Kind::not_tls);                // longer than a record may be
  EXPECT_EQ(kind_of(Buffer{22, 3, 3, 0, 4, 2}), Kind::not_tls);                // a ServerHello
  EXPECT_EQ(kind_of(Buffer{21, 3, 3, 0, 2, 2, 40}), Kind::not_tls);            // an alert
  EXPECT_EQ(kind_of(Buffer{22, 3, 1, 0, 1, 1, 23}), Kind::not_tls);            // another record inside the message
}

TEST(ClientHello, AtMost16KiB) {
  EXPECT_EQ(kind_of(Buffer{22, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xF7}), Kind::need_more);  // 5 + 4 + 16375 = 16384
  EXPECT_EQ(parse_client_hello(Buffer{22, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xF7}).needed, max_client_hello_bytes);
  EXPECT_EQ(kind_of(Buffer{22, 3, 1, 0x40, 0, 1, 0, 0x3F, 0xF8}), Kind::not_tls);
  EXPECT_EQ(kind_of(Buffer{22, 3, 1, 0x40, 0, 1, 0xFF, 0xFF, 0xFF}), Kind::not_tls);

  // The record headers bring the bytes on the wire over the bound, though the message is within it.
  const Buffer large = made_hello(extension(21, std::string(16'000, '\0')));
  expect_at_every_prefix(in_records_of(large, {8'000}), false);
  const Buffer largest = made_hello(extension(21, std::string(max_client_hello_bytes - made_hello({}).size() - 4, '\0')));
  ASSERT_EQ(largest.size(), max_client_hello_bytes);
  EXPECT_EQ(kind_of(largest), Kind::tls);
  const Buffer over = in_records_of(largest, {8'000});
  EXPECT_EQ(kind_of(over), Kind::not_tls);
  EXPECT_EQ(parse_client_hello(std::span{over}.first(max_client_hello_bytes)).kind, Kind::not_tls);
}

TEST(ClientHello, MadeByHand) {
  EXPECT_EQ(kind_of(made_hello({}, false)), Kind::tls);
  EXPECT_EQ(kind_of(made_hello({})), Kind::tls);
  const auto ours = parse_client_hello(made_hello(extension(16, std::string("\0\x0a\x09postern/1", 12))));
  EXPECT_EQ(ours.kind, Kind::tls);
  EXPECT_TRUE(ours.postern_alpn);
}

TEST(ClientHello, MalformedIsNotTls) {
  const std::string ok("\0\x0a\x09postern/1", 12);
  EXPECT_EQ(kind_of(made_hello(extension(16, ""))), Kind::not_tls);                                      // no list
  EXPECT_EQ(kind_of(made_hello(extension(16, std::string("\0\0", 2)))), Kind::not_tls);                  // an empty list
  EXPECT_EQ(kind_of(made_hello(extension(16, std::string("\0\1\0", 3)))), Kind::not_tls);                // an empty name
  EXPECT_EQ(kind_of(made_hello(extension(16, std::string("\0\x0a\x0apostern/1", 12)))), Kind::not_tls);  // a name longer than the list
  EXPECT_EQ(kind_of(made_hello(extension(16, ok + "x"))), Kind::not_tls);                                // bytes after the list
  Buffer twice = extension(16, ok);
  const Buffer again = twice;
  twice.insert(twice.end(), again.begin(), again.end());
  EXPECT_EQ(kind_of(made_hello(twice)), Kind::not_tls);  // ALPN twice
  EXPECT_EQ(kind_of(made_hello({0, 16, 0})), Kind::not_tls);
  EXPECT_EQ(kind_of(made_hello({0, 21, 0, 9, 0})), Kind::not_tls);

  // The fields before the extensions: offsets in made_hello's output.
  const auto with = [](std::size_t at, std::uint8_t value) {
    Buffer hello = made_hello({});
    hello[at] = value;
    return kind_of(hello);
  };
  EXPECT_EQ(with(9, 2), Kind::not_tls);    // legacy_version 2.x
  EXPECT_EQ(with(43, 33), Kind::not_tls);  // a session ID longer than 32
  EXPECT_EQ(with(45, 0), Kind::not_tls);   // no cipher suite
  EXPECT_EQ(with(45, 1), Kind::not_tls);   // half a cipher suite
  EXPECT_EQ(with(48, 0), Kind::not_tls);   // no compression method
  EXPECT_EQ(with(51, 1), Kind::not_tls);   // extensions longer than the message
}

TEST(ClientHello, EveryByteOfARealOneChanged) {
  const Buffer hello = openssl_hello({.alpn = alpn({"postern/1"}), .max_version = TLS1_3_VERSION});
  for (std::size_t at = 0; at < hello.size(); ++at) {
    for (const int change : {0x01, 0x80, 0xFF}) {
      Buffer changed = hello;
      changed[at] = static_cast<std::uint8_t>(changed[at] ^ change);
      // Whole answers for each; all prefixes where the headers changed.
      if (at < 16) {
        expect_consistent(changed);
      } else {
        const auto result = parse_client_hello(changed);
        ASSERT_TRUE(result.kind != Kind::need_more) << "byte " << at << ": the headers are whole, nothing can be missing";
      }
    }
  }
}

TEST(ClientHello, RandomBytes) {
  std::mt19937 random{20261122};  // NOLINT: the same bytes in every run
  for (int round = 0; round < 2000; ++round) {
    Buffer bytes(random() % 200);
    for (auto& byte : bytes) byte = static_cast<std::uint8_t>(random());
    if (round % 2 == 0 && bytes.size() > 9) {  // far enough into the parser
      const Buffer start{22, 3, 1, 0, static_cast<std::uint8_t>(1 + random() % 100), 1, 0, 0, static_cast<std::uint8_t>(random() % 120)};
      std::copy(start.begin(), start.end(), bytes.begin());
    }
    ASSERT_NO_FATAL_FAILURE(expect_consistent(bytes));
  }
}

}  // namespace
}  // namespace postern
