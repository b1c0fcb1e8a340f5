// What OpenSSL calls back during a handshake, and the state that it carries for us. Private to TlsContext.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "certs/openssl.hpp"
#include "certs/session_cache.hpp"
#include "certs/ticket_keys.hpp"
#include "certs/tls_context.hpp"

namespace postern {

// Of one SSL_CTX, which owns it: a connection may outlive the TlsContext that made it.
struct TlsCore {
  std::shared_ptr<const X509Context> identity;
  std::shared_ptr<SessionCache> sessions;  // null: no resumption, but by tickets
  TicketKeysPtr ticket_keys;               // null: no tickets that carry state
  std::string_view alpn;
  std::chrono::seconds skew{};
  ContentHash session_context{};  // of our SPIFFE ID and bundles: what a session must have been made under
};

// Of one SSL, which owns it.
struct TlsConnection {
  KeyPtr key;  // lent for the handshake: a connection outlives the rotation of the SVID, and its key must not
  bool accept_plain_spiffe = false;
  bool alpn_refused = false;
  CertificateError error = CertificateError::none;
  std::string detail;
  ClientSessionKey session_key;  // outbound only
};

// Of one SSL_SESSION and its copies.
struct TlsSession {
  std::shared_ptr<const PeerIdentity> peer;
  SystemTime ends;  // the earlier end of both SVIDs
};

// Gives the SSL our certificate, its chain and the key. False: OpenSSL's error queue says why.
bool use_svid(SSL* ssl, const X509Svid& svid, EVP_PKEY* key);
// Installs the callbacks; the SSL_CTX takes the core. False: out of memory.
bool install_callbacks(SSL_CTX* ctx, std::unique_ptr<TlsCore> core);
// Gives the SSL its state. False: out of memory.
bool attach(SSL* ssl, std::unique_ptr<TlsConnection> connection);

const TlsCore* core_of(const SSL_CTX* ctx);
TlsConnection* connection_of(const SSL* ssl);
const TlsSession* session_of(const SSL_SESSION* session);

}  // namespace postern
