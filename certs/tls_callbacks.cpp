#include "certs/tls_callbacks.hpp"

#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <openssl/x509_vfy.h>

#include <algorithm>
#include <array>
#include <utility>

namespace postern {
namespace {

template <class T>
void free_ex_data(void*, void* object, CRYPTO_EX_DATA*, int, long, void*) {
  delete static_cast<T*>(object);
}

// OpenSSL copies a session for each ticket it makes or receives; the copy proves the same peer.
int dup_session(CRYPTO_EX_DATA*, const CRYPTO_EX_DATA*, void** object, int, long, void*) {
  if (*object != nullptr) *object = new TlsSession(*static_cast<const TlsSession*>(*object));
  return 1;
}

// OpenSSL hands out slots for the life of the process.
int core_slot() {
  static const int slot = SSL_CTX_get_ex_new_index(0, nullptr, nullptr, nullptr, free_ex_data<TlsCore>);
  return slot;
}
int connection_slot() {
  static const int slot = SSL_get_ex_new_index(0, nullptr, nullptr, nullptr, free_ex_data<TlsConnection>);
  return slot;
}
int session_slot() {
  static const int slot = SSL_SESSION_get_ex_new_index(0, nullptr, nullptr, dup_session, free_ex_data<TlsSession>);
  return slot;
}

bool set_session(SSL_SESSION* session, std::unique_ptr<TlsSession> state) {
  delete static_cast<TlsSession*>(SSL_SESSION_get_ex_data(session, session_slot()));
  if (SSL_SESSION_set_ex_data(session, session_slot(), state.get()) != 1) return false;
  state.release();
  return true;
}

std::string_view id_of(const SSL_SESSION* session) {
  unsigned int size = 0;
  const unsigned char* id = SSL_SESSION_get_id(session, &size);
  return {reinterpret_cast<const char*>(id), size};
}

std::string_view context_of(const SSL_SESSION* session) {
  unsigned int size = 0;
  const unsigned char* context = SSL_SESSION_get0_id_context(session, &size);
  return {reinterpret_cast<const char*>(context), size};
}

// Which alert the peer gets (RFC 8446 section 6.2) follows from the X.509 error that OpenSSL is told.
int x509_error_of(CertificateError error) {
  switch (error) {
    case CertificateError::none: return X509_V_OK;
    case CertificateError::expired: return X509_V_ERR_CERT_HAS_EXPIRED;              // certificate_expired
    case CertificateError::not_yet_valid: return X509_V_ERR_CERT_NOT_YET_VALID;      // bad_certificate
    case CertificateError::bad_signature: return X509_V_ERR_CERT_SIGNATURE_FAILURE;  // decrypt_error
    case CertificateError::path_too_long:
    case CertificateError::issuer_not_ca:
    case CertificateError::issuer_may_not_sign:
    case CertificateError::issuer_has_path:
    case CertificateError::unknown_trust_domain:
    case CertificateError::untrusted: return X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY;  // unknown_ca
    case CertificateError::extended_key_usage: return X509_V_ERR_INVALID_PURPOSE;           // unsupported_certificate
    case CertificateError::not_presented:
    case CertificateError::malformed:
    case CertificateError::too_large:
    case CertificateError::no_uri_san:
    case CertificateError::several_uri_sans:
    case CertificateError::san_not_critical:
    case CertificateError::spiffe_id_too_long:
    case CertificateError::not_a_spiffe_id:
    case CertificateError::no_workload_path:
    case CertificateError::leaf_is_ca:
    case CertificateError::chain_order:
    case CertificateError::name_constraints:
    case CertificateError::unknown_critical_extension:
    case CertificateError::weak_key:
    case CertificateError::weak_signature:
    case CertificateError::key_usage_missing:
    case CertificateError::key_usage_not_critical:
    case CertificateError::no_digital_signature:
    case CertificateError::may_sign_certificates:
    case CertificateError::may_sign_crls: return X509_V_ERR_CERT_REJECTED;  // bad_certificate
  }
  return X509_V_ERR_UNSPECIFIED;
}

// Replaces OpenSSL's own verification of the presented chain.
int verify_certificate(X509_STORE_CTX* store, void*) {
  SSL* const ssl = static_cast<SSL*>(X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx()));
  const TlsCore* core = core_of(SSL_get_SSL_CTX(ssl));
  TlsConnection* connection = connection_of(ssl);
  const SystemTime now = std::chrono::system_clock::now();
  const TlsEnd peer_end = SSL_is_server(ssl) == 1 ? TlsEnd::client : TlsEnd::server;

  PeerVerification verified = verify_peer(X509_STORE_CTX_get0_untrusted(store), core->identity->bundles, peer_end, now, core->skew);
  connection->error = verified.error;
  connection->detail = std::move(verified.detail);
  X509_STORE_CTX_set_error(store, x509_error_of(verified.error));
  if (!verified.peer) return 0;

  // The identity lives with the session: that is what a resumption brings back.
  SSL_SESSION* const session = SSL_get_session(ssl);
  const SystemTime ends = std::min(verified.peer->not_after, core->identity->svid.not_after);
  auto state = std::make_unique<TlsSession>(TlsSession{std::make_shared<const PeerIdentity>(std::move(*verified.peer)), ends});
  if (!set_session(session, std::move(state))) {
    X509_STORE_CTX_set_error(store, X509_V_ERR_OUT_OF_MEM);
    return 0;
  }
  // Also the lifetime that the ticket announces (RFC 8446 section 4.6.1: seven days at most).
  const auto left = std::chrono::duration_cast<std::chrono::seconds>(ends - now).count();
  SSL_SESSION_set_timeout(session, std::clamp<long>(left, 1, 7 * 24 * 3600L));
  return 1;
}

// What a server needs to resume, without the peer's certificate chain, which is most of a session's memory.
SessionPtr without_certificates(const SSL_SESSION* full) {
  std::array<unsigned char, SSL_MAX_MASTER_KEY_LENGTH> secret{};
  const std::size_t secret_size = SSL_SESSION_get_master_key(full, secret.data(), secret.size());
  const std::string_view id = id_of(full);
  const std::string_view context = context_of(full);
  const TlsSession* state = session_of(full);

  SessionPtr copy(SSL_SESSION_new());
  const bool made =
      copy && SSL_SESSION_set_protocol_version(copy.get(), SSL_SESSION_get_protocol_version(full)) == 1 &&
      SSL_SESSION_set_cipher(copy.get(), SSL_SESSION_get0_cipher(full)) == 1 &&
      SSL_SESSION_set1_master_key(copy.get(), secret.data(), secret_size) == 1 &&
      SSL_SESSION_set1_id(copy.get(), reinterpret_cast<const unsigned char*>(id.data()), static_cast<unsigned int>(id.size())) == 1 &&
      SSL_SESSION_set1_id_context(copy.get(), reinterpret_cast<const unsigned char*>(context.data()),
                                  static_cast<unsigned int>(context.size())) == 1 &&
      set_session(copy.get(), std::make_unique<TlsSession>(*state));
  OPENSSL_cleanse(secret.data(), secret.size());
  if (!made) {
    ERR_clear_error();
    return nullptr;
  }
#if OPENSSL_VERSION_NUMBER >= 0x30400000L
  SSL_SESSION_set_time_ex(copy.get(), SSL_SESSION_get_time_ex(full));
#else
  SSL_SESSION_set_time(copy.get(), SSL_SESSION_get_time(full));
#endif
  SSL_SESSION_set_timeout(copy.get(), SSL_SESSION_get_timeout(full));
  return copy;
}

// Returns 1 when it keeps the reference that it is given.
int keep_session(SSL* ssl, SSL_SESSION* session) {
  const TlsCore* core = core_of(SSL_get_SSL_CTX(ssl));
  const TlsSession* state = session_of(session);
  if (core->sessions == nullptr || state == nullptr) return 0;
  if (SSL_is_server(ssl) == 1) {
    if (SessionPtr kept = without_certificates(session)) core->sessions->put_server(id_of(session), std::move(kept), state->ends);
    return 0;
  }
  core->sessions->put_client(connection_of(ssl)->session_key, SessionPtr(session), state->ends);
  return 1;
}

SSL_SESSION* find_session(SSL* ssl, const unsigned char* id, int size, int* copy) {
  *copy = 0;  // find_server() took the reference, under its lock
  const TlsCore* core = core_of(SSL_get_SSL_CTX(ssl));
  if (core->sessions == nullptr || size <= 0) return nullptr;
  const std::string_view text(reinterpret_cast<const char*>(id), static_cast<std::size_t>(size));
  SessionPtr session = core->sessions->find_server(text, std::chrono::system_clock::now());
  // OpenSSL would refuse it as well, but only after the next line.
  if (!session || context_of(session.get()) !=
                      std::string_view(reinterpret_cast<const char*>(core->session_context.data()), core->session_context.size()))
    return nullptr;
  // One session serves any number of resumptions: a ticket for each would cost a message, a copy and a cache entry.
  SSL_set_num_tickets(ssl, 0);
  return session.release();
}

void forget_session(SSL_CTX* ctx, SSL_SESSION* session) {
  const TlsCore* core = core_of(ctx);
  if (core != nullptr && core->sessions != nullptr) core->sessions->remove_server(id_of(session));
}

// Before a ticket is sealed: who the peer is goes into it.
int fill_ticket(SSL* ssl, void*) {
  SSL_SESSION* const session = SSL_get_session(ssl);
  const TlsSession* state = session_of(session);
  if (state == nullptr) return 0;
  const std::string content = encode_ticket_content({*state->peer, state->ends});
  return SSL_SESSION_set1_ticket_appdata(session, content.data(), content.size());
}

// After a ticket was opened: its peer is whom the full handshake proved, while both SVIDs last. Otherwise the handshake is a full one.
SSL_TICKET_RETURN take_ticket(SSL* ssl, SSL_SESSION* session, const unsigned char*, std::size_t, SSL_TICKET_STATUS status, void*) {
  if (status != SSL_TICKET_SUCCESS && status != SSL_TICKET_SUCCESS_RENEW) return SSL_TICKET_RETURN_IGNORE_RENEW;
  void* data = nullptr;
  std::size_t size = 0;
  if (SSL_SESSION_get0_ticket_appdata(session, &data, &size) != 1 || data == nullptr) return SSL_TICKET_RETURN_IGNORE_RENEW;
  const auto content = decode_ticket_content(std::string_view(static_cast<const char*>(data), size));
  const SystemTime now = std::chrono::system_clock::now();
  const TlsCore* core = core_of(SSL_get_SSL_CTX(ssl));
  if (!content || now >= content->ends || now >= core->identity->svid.not_after) return SSL_TICKET_RETURN_IGNORE_RENEW;
  auto state = std::make_unique<TlsSession>(TlsSession{std::make_shared<const PeerIdentity>(content->peer), content->ends});
  if (!set_session(session, std::move(state))) return SSL_TICKET_RETURN_ABORT;
  return status == SSL_TICKET_SUCCESS_RENEW ? SSL_TICKET_RETURN_USE_RENEW : SSL_TICKET_RETURN_USE;
}

// SSL_CTX_set_tlsext_ticket_key_evp_cb(3): 1 go on, 2 go on and renew the ticket, 0 not ours, -1 failed.
int ticket_key(SSL* ssl, unsigned char* name, unsigned char* iv, EVP_CIPHER_CTX* cipher, EVP_MAC_CTX* mac, int seal) {
  const TicketKeys& all = *core_of(SSL_get_SSL_CTX(ssl))->ticket_keys;
  std::size_t index = all.seals;
  if (seal == 0) {
    const auto has_name = [&](const TicketKey& key) { return std::equal(key.name.begin(), key.name.end(), name); };
    const auto found = std::find_if(all.keys.begin(), all.keys.end(), has_name);
    if (found == all.keys.end()) return 0;
    index = static_cast<std::size_t>(found - all.keys.begin());
  }
  TicketKey key = all.keys[index];
  std::array<OSSL_PARAM, 3> parameters{OSSL_PARAM_construct_octet_string(OSSL_MAC_PARAM_KEY, key.mac.data(), key.mac.size()),
                                       OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, const_cast<char*>("SHA256"), 0),
                                       OSSL_PARAM_construct_end()};
  bool ok = EVP_MAC_CTX_set_params(mac, parameters.data()) == 1;
  if (seal != 0) {
    std::copy(key.name.begin(), key.name.end(), name);
    ok = ok && RAND_bytes(iv, EVP_CIPHER_get_iv_length(EVP_aes_256_cbc())) == 1 &&
         EVP_EncryptInit_ex2(cipher, EVP_aes_256_cbc(), key.cipher.data(), iv, nullptr) == 1;
  } else {
    ok = ok && EVP_DecryptInit_ex2(cipher, EVP_aes_256_cbc(), key.cipher.data(), iv, nullptr) == 1;
  }
  OPENSSL_cleanse(&key, sizeof key);
  if (!ok) return -1;
  return seal != 0 || index == all.seals ? 1 : 2;
}

// RFC 7301 section 3.2. Called only when the client offers ALPN at all.
int select_alpn(SSL* ssl, const unsigned char** out, unsigned char* out_size, const unsigned char* in, unsigned int in_size, void*) {
  const std::string_view ours = core_of(SSL_get_SSL_CTX(ssl))->alpn;
  for (unsigned int at = 0; at < in_size;) {
    const unsigned int size = in[at];
    if (size >= in_size - at) break;
    if (std::string_view(reinterpret_cast<const char*>(in + at + 1), size) == ours) {
      *out = in + at + 1;
      *out_size = static_cast<unsigned char>(size);
      return SSL_TLSEXT_ERR_OK;
    }
    at += size + 1;
  }
  TlsConnection* connection = connection_of(ssl);
  if (connection->accept_plain_spiffe) return SSL_TLSEXT_ERR_NOACK;
  connection->alpn_refused = true;
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

// A client that offers no ALPN at all never reaches select_alpn().
int check_client_hello(SSL* ssl, int* alert, void*) {
  TlsConnection* connection = connection_of(ssl);
  const unsigned char* data = nullptr;
  std::size_t size = 0;
  if (connection->accept_plain_spiffe ||
      SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &data, &size) == 1) {
    return SSL_CLIENT_HELLO_SUCCESS;
  }
  connection->alpn_refused = true;
  *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
  return SSL_CLIENT_HELLO_ERROR;
}

// Called when a full handshake needs our certificate; a resumed one needs none.
int lend_svid(SSL* ssl, void*) {
  const X509Svid& svid = core_of(SSL_get_SSL_CTX(ssl))->identity->svid;
  if (svid.chain.empty()) return 1;  // a client that has none yet
  const TlsConnection* connection = connection_of(ssl);
  if (connection == nullptr || !connection->key) return 0;
  return use_svid(ssl, svid, connection->key.get()) ? 1 : 0;
}

// OpenSSL holds one's own ephemeral key, and the peer's, until the connection ends, although nothing reads them after the handshake: with
// ML-KEM 6 to 8 KB of each held connection, and a private key in memory for no purpose. Setting a type empties (and wipes) the shared
// object; X25519 is the one of which OpenSSL answers questions of size without looking for a key.
void forget_ephemeral_keys(SSL* ssl) {
  EVP_PKEY* key = nullptr;
  if (SSL_get_tmp_key(ssl, &key) == 1) EVP_PKEY_set_type(key, EVP_PKEY_X25519);
  EVP_PKEY_free(std::exchange(key, nullptr));
  if (SSL_get_peer_tmp_key(ssl, &key) == 1) EVP_PKEY_set_type(key, EVP_PKEY_X25519);
  EVP_PKEY_free(key);
}

void return_keys(const SSL* callers, int where, int) {
  if (where != SSL_CB_HANDSHAKE_DONE) return;
  SSL* const ssl = const_cast<SSL*>(callers);  // OpenSSL's callback says const; the connection is the caller's
  if (TlsConnection* connection = connection_of(ssl); connection != nullptr) connection->key.reset();
  SSL_certs_clear(ssl);
  forget_ephemeral_keys(ssl);
}

}  // namespace

bool use_svid(SSL* ssl, const X509Svid& svid, EVP_PKEY* key) {
  if (SSL_use_certificate(ssl, svid.chain.front().get()) != 1 || SSL_use_PrivateKey(ssl, key) != 1) return false;
  for (std::size_t i = 1; i < svid.chain.size(); ++i) {
    if (SSL_add1_chain_cert(ssl, svid.chain[i].get()) != 1) return false;
  }
  return true;
}

bool install_callbacks(SSL_CTX* ctx, std::unique_ptr<TlsCore> core) {
  const bool resume = core->sessions != nullptr;
  const bool seal = core->ticket_keys != nullptr;
  if (session_slot() < 0 || connection_slot() < 0 || core_slot() < 0 || SSL_CTX_set_ex_data(ctx, core_slot(), core.get()) != 1)
    return false;
  core.release();

  SSL_CTX_set_cert_cb(ctx, lend_svid, nullptr);
  SSL_CTX_set_info_callback(ctx, return_keys);
  SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  SSL_CTX_set_cert_verify_callback(ctx, verify_certificate, nullptr);
  SSL_CTX_set_client_hello_cb(ctx, check_client_hello, nullptr);
  SSL_CTX_set_alpn_select_cb(ctx, select_alpn, nullptr);
  if (seal) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_num_tickets(ctx, 1) == 1 && SSL_CTX_set_tlsext_ticket_key_evp_cb(ctx, ticket_key) == 1 &&
           SSL_CTX_set_session_ticket_cb(ctx, fill_ticket, take_ticket, nullptr) == 1;
  }
  if (!resume) {
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    return SSL_CTX_set_num_tickets(ctx, 0) == 1;
  }
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_BOTH | SSL_SESS_CACHE_NO_INTERNAL | SSL_SESS_CACHE_NO_AUTO_CLEAR);
  SSL_CTX_sess_set_new_cb(ctx, keep_session);
  SSL_CTX_sess_set_get_cb(ctx, find_session);
  SSL_CTX_sess_set_remove_cb(ctx, forget_session);
  return SSL_CTX_set_num_tickets(ctx, 1) == 1;
}

bool attach(SSL* ssl, std::unique_ptr<TlsConnection> connection) {
  if (SSL_set_ex_data(ssl, connection_slot(), connection.get()) != 1) return false;
  connection.release();
  return true;
}

const TlsCore* core_of(const SSL_CTX* ctx) { return static_cast<const TlsCore*>(SSL_CTX_get_ex_data(ctx, core_slot())); }
TlsConnection* connection_of(const SSL* ssl) { return static_cast<TlsConnection*>(SSL_get_ex_data(ssl, connection_slot())); }
const TlsSession* session_of(const SSL_SESSION* session) {
  return session == nullptr ? nullptr : static_cast<const TlsSession*>(SSL_SESSION_get_ex_data(session, session_slot()));
}

}  // namespace postern
