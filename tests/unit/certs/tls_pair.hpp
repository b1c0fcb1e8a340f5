// Pair: a TLS client and server joined in memory.
#pragma once

#include <openssl/err.h>

#include <utility>

#include "certs/tls_context.hpp"

namespace postern::test {

// Both ends of one connection, joined in memory.
struct Pair {
  SslPtr client;
  SslPtr server;
  int client_result = 0;
  int server_result = 0;
  HandshakeFailure client_failure;
  HandshakeFailure server_failure;

  Pair(SslPtr client_end, SslPtr server_end) : client(std::move(client_end)), server(std::move(server_end)) {
    BIO* a = nullptr;
    BIO* b = nullptr;
    BIO_new_bio_pair(&a, 1U << 16, &b, 1U << 16);
    SSL_set_bio(client.get(), a, a);
    SSL_set_bio(server.get(), b, b);
  }

  // Until both ends are done; in TLS 1.3 the client learns of its refusal only when it reads.
  bool handshake() {
    for (int turn = 0; turn < 10; ++turn) {
      step(client.get(), client_result, client_failure);
      step(server.get(), server_result, server_failure);
    }
    if (client_result == 1 && server_result == 1) return exchange(*server, *client) && exchange(*client, *server);
    char byte = 0;
    if (client_result == 1 && SSL_read(client.get(), &byte, 1) <= 0) client_failure = TlsContext::handshake_failure(client.get());
    return false;
  }

  static bool exchange(SSL& from, SSL& to) {
    char received = 0;
    return SSL_write(&from, "x", 1) == 1 && SSL_read(&to, &received, 1) == 1 && received == 'x';
  }

 private:
  static void step(SSL* ssl, int& result, HandshakeFailure& failure) {
    if (result != 0) return;
    ERR_clear_error();
    const int done = SSL_do_handshake(ssl);
    const int error = SSL_get_error(ssl, done);
    if (done == 1) result = 1;
    if (error == SSL_ERROR_SSL) {
      failure = TlsContext::handshake_failure(ssl);
      result = -1;
    }
  }
};

}  // namespace postern::test
