#include "certs/tls_context.hpp"

#include <openssl/err.h>
#include <openssl/sha.h>

#include <cstring>

#include "certs/tls_callbacks.hpp"

namespace postern {
namespace {

// AES-128-GCM first: the fastest on every machine with AES instructions, and no weaker in practice.
constexpr const char* cipher_suites = "TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256";
// The PKCS #1 ones are for signatures inside certificates only (RFC 8446 section 4.2.3).
constexpr const char* signature_algorithms =
    "ecdsa_secp256r1_sha256:ed25519:ecdsa_secp384r1_sha384:rsa_pss_rsae_sha256:rsa_pss_rsae_sha384:rsa_pss_rsae_sha512:"
    "rsa_pkcs1_sha256:rsa_pkcs1_sha384:rsa_pkcs1_sha512";

Result<void> set_groups(SSL_CTX* ctx, const std::string& wanted) {
  std::string accepted;
  for (std::size_t at = 0; at <= wanted.size();) {
    const std::size_t colon = std::min(wanted.find(':', at), wanted.size());
    const std::string name = wanted.substr(at, colon - at);
    at = colon + 1;
    if (SSL_CTX_set1_groups_list(ctx, name.c_str()) != 1) {
      ERR_clear_error();
      // OpenSSL before 3.5 has no ML-KEM: the next group in the list does then.
      if (name.find("MLKEM") != std::string::npos) continue;
      return Error{"unknown key exchange group \"" + name + "\"; expected names such as X25519MLKEM768, X25519, P-256, joined by ':'", {}};
    }
    if (!accepted.empty()) accepted += ':';
    accepted += name;
  }
  if (accepted.empty() || SSL_CTX_set1_groups_list(ctx, accepted.c_str()) != 1)
    return openssl_error("no usable key exchange group in \"" + wanted + "\"");
  return {};
}

Result<void> set_protocol(SSL_CTX* ctx, const TlsSettings& settings) {
  // What the system's openssl.cnf may have set is set again here: the data plane's TLS is one thing everywhere.
  SSL_CTX_clear_options(ctx, SSL_CTX_get_options(ctx));
  SSL_CTX_set_options(ctx, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  if (settings.ticket_keys == nullptr) SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
  if (settings.tcp_end_is_enough) SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
  SSL_CTX_set_mode(ctx,
                   SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_read_ahead(ctx, 1);
  SSL_CTX_set_default_read_buffer_len(ctx, settings.read_buffer_bytes);
  SSL_CTX_set_max_cert_list(ctx, static_cast<long>(max_chain_length * max_certificate_bytes));
  SSL_CTX_set_security_level(ctx, 2);
  if (SSL_CTX_set_min_proto_version(ctx, TLS1_3_VERSION) != 1 || SSL_CTX_set_max_proto_version(ctx, TLS1_3_VERSION) != 1 ||
      SSL_CTX_set_ciphersuites(ctx, cipher_suites) != 1 || SSL_CTX_set1_sigalgs_list(ctx, signature_algorithms) != 1 ||
      SSL_CTX_set_max_early_data(ctx, 0) != 1) {
    return openssl_error("cannot set up TLS 1.3");
  }
  return set_groups(ctx, settings.groups);
}

// Better found out now than at every handshake.
Result<void> try_svid(SSL_CTX* ctx, const X509Svid& svid) {
  const SslPtr trial(SSL_new(ctx));
  if (!trial || !use_svid(trial.get(), svid, svid.key.get())) return openssl_error("cannot use the SVID");
  return {};
}

// Sessions belong to the protocol, the identity and the bundles that they were made under; with other ones they are never found or
// accepted.
ContentHash session_context_of(const X509Context& identity, std::string_view alpn) {
  const ContentHash bundles = identity.bundles.hash();
  std::string text = "postern session context\n";
  text.append(alpn).append("\n").append(identity.svid.id.text()).append("\n").append(bundles.begin(), bundles.end());
  ContentHash hash{};
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), hash.data());
  return hash;
}

std::uint64_t client_context_of(const ContentHash& session_context, bool offer_postern_alpn) {
  std::uint64_t context = 0;
  std::memcpy(&context, session_context.data(), sizeof context);
  return offer_postern_alpn ? context : ~context;
}

}  // namespace

namespace {

std::shared_ptr<X509Context> copy_without_key(const X509Context& context) {
  auto copy = std::make_shared<X509Context>();
  for (const X509Ptr& certificate : context.svid.chain) copy->svid.chain.push_back(share(certificate.get()));
  copy->svid.id = context.svid.id;
  copy->svid.not_before = context.svid.not_before;
  copy->svid.not_after = context.svid.not_after;
  copy->svid.serial = context.svid.serial;
  copy->bundles = context.bundles;
  return copy;
}

}  // namespace

std::shared_ptr<const X509Context> without_key(const X509Context& context) { return copy_without_key(context); }

std::shared_ptr<const X509Context> with_bundles(const X509Context& context, TrustBundleSet bundles) {
  auto copy = copy_without_key(context);
  if (context.svid.key) copy->svid.key = share(context.svid.key.get());
  copy->bundles = std::move(bundles);
  return copy;
}

Result<TlsContext> TlsContext::make(std::shared_ptr<const X509Context> identity, const TlsSettings& settings,
                                    std::shared_ptr<SessionCache> sessions, std::uint64_t generation) {
  ERR_clear_error();
  TlsContext made;
  made.ctx_.reset(SSL_CTX_new(TLS_method()));
  if (!made.ctx_) return openssl_error("cannot make a TLS context");
  SSL_CTX* const ctx = made.ctx_.get();
  if (auto set = set_protocol(ctx, settings); !set) return set.error();
  if (!identity->svid.chain.empty()) {
    if (auto tried = try_svid(ctx, identity->svid); !tried) return tried.error();
    made.key_ = share(identity->svid.key.get());
  }
  identity = without_key(*identity);

  auto core = std::make_unique<TlsCore>();
  core->identity = identity;
  if (settings.resumption) core->sessions = std::move(sessions);
  if (settings.resumption) core->ticket_keys = settings.ticket_keys;
  core->alpn = settings.alpn;
  core->skew = settings.clock_skew;
  core->session_context = session_context_of(*identity, settings.alpn);
  if (SSL_CTX_set_session_id_context(ctx, core->session_context.data(), static_cast<unsigned int>(core->session_context.size())) != 1 ||
      !install_callbacks(ctx, std::move(core))) {
    return openssl_error("cannot set up a TLS context");
  }
  made.identity_ = std::move(identity);
  made.generation_ = generation;
  return made;
}

SslPtr TlsContext::new_server(bool accept_plain_spiffe) const {
  SslPtr ssl(SSL_new(ctx_.get()));
  auto connection = std::make_unique<TlsConnection>();
  if (key_) connection->key = share(key_.get());
  connection->accept_plain_spiffe = accept_plain_spiffe;
  if (!ssl || !attach(ssl.get(), std::move(connection))) return nullptr;
  SSL_set_accept_state(ssl.get());
  return ssl;
}

SslPtr TlsContext::new_server_for_anybody() const {
  SslPtr ssl = new_server(false);
  if (ssl) SSL_set_verify(ssl.get(), SSL_VERIFY_NONE, nullptr);
  return ssl;
}

SslPtr TlsContext::new_client(const SocketAddress& destination, bool offer_postern_alpn) const {
  SslPtr ssl(SSL_new(ctx_.get()));
  const TlsCore* core = core_of(ctx_.get());
  auto connection = std::make_unique<TlsConnection>();
  if (key_) connection->key = share(key_.get());
  connection->session_key = ClientSessionKey{destination, client_context_of(core->session_context, offer_postern_alpn)};
  const ClientSessionKey key = connection->session_key;
  if (!ssl || !attach(ssl.get(), std::move(connection))) return nullptr;
  SSL_set_connect_state(ssl.get());
  // Unlike its neighbours, this one returns 0 for success.
  if (offer_postern_alpn) {
    // A protocol name list has length bytes (RFC 7301 section 3.1).
    const std::string list = static_cast<char>(core->alpn.size()) + std::string(core->alpn);
    if (SSL_set_alpn_protos(ssl.get(), reinterpret_cast<const unsigned char*>(list.data()), static_cast<unsigned int>(list.size())) != 0)
      return nullptr;
  }
  if (core->sessions != nullptr) {
    const SessionPtr kept = core->sessions->find_client(key, std::chrono::system_clock::now());
    // A copy: OpenSSL marks a client's session as spent once it has resumed, so that no two connections can be linked by their
    // ticket (RFC 8446 appendix C.4). Our connections name their pod in the same breath; using it again saves a ticket for each.
    const SessionPtr copy(kept ? SSL_SESSION_dup(kept.get()) : nullptr);
    if (copy && SSL_set_session(ssl.get(), copy.get()) != 1) return nullptr;
  }
  return ssl;
}

bool TlsContext::usable(SystemTime now) const { return now < identity_->svid.not_after; }

std::shared_ptr<const PeerIdentity> TlsContext::peer_identity(const SSL* ssl) {
  // Before the end of the handshake this may still be a session that we offered and the server has not proved.
  if (SSL_is_init_finished(ssl) != 1) return nullptr;
  const TlsSession* session = session_of(SSL_get_session(ssl));
  return session == nullptr ? nullptr : session->peer;
}

void TlsContext::forget_session(const SSL* ssl) {
  const TlsCore* core = core_of(SSL_get_SSL_CTX(ssl));
  const SSL_SESSION* session = SSL_get_session(ssl);
  if (core->sessions == nullptr || session == nullptr) return;
  if (SSL_is_server(ssl) == 0) return core->sessions->remove_client(connection_of(ssl)->session_key, nullptr);
  unsigned int size = 0;
  const unsigned char* id = SSL_SESSION_get_id(session, &size);
  core->sessions->remove_server({reinterpret_cast<const char*>(id), size});
}

CertificateError TlsContext::verify_error(const SSL* ssl) { return connection_of(ssl)->error; }

bool TlsContext::used_postern_alpn(const SSL* ssl) {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl, &name, &size);
  return std::string_view(reinterpret_cast<const char*>(name), size) == core_of(SSL_get_SSL_CTX(ssl))->alpn;
}

TlsFacts TlsContext::facts(const SSL* ssl) {
  TlsFacts facts;
  facts.version = SSL_get_version(ssl);
  if (const char* cipher = SSL_CIPHER_get_name(SSL_get_current_cipher(ssl)); cipher != nullptr) facts.cipher = cipher;
  // The two calls below read only; their macros want a mutable SSL.
  SSL* const unlocked = const_cast<SSL*>(ssl);
  if (const long group = SSL_get_negotiated_group(unlocked); group > 0) {
    if (const char* name = SSL_group_to_name(unlocked, static_cast<int>(group)); name != nullptr) facts.group = name;
  }
  facts.resumed = SSL_session_reused(ssl) == 1;
  return facts;
}

HandshakeFailure TlsContext::handshake_failure(const SSL* ssl) {
  const TlsConnection* connection = connection_of(ssl);
  const unsigned long code = ERR_peek_error();
  const int reason = ERR_GET_REASON(code);
  HandshakeFailure failure;
  failure.certificate = connection->error;
  failure.detail = openssl_error("TLS handshake").message;
  if (connection->error != CertificateError::none) {
    failure.kind = HandshakeFailure::Kind::identity_rejected;
    failure.detail = std::string(describe(connection->error)) + (connection->detail.empty() ? "" : ": " + connection->detail);
  } else if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE) {
    failure.kind = HandshakeFailure::Kind::certificate_required;
    failure.certificate = CertificateError::not_presented;
  } else if (connection->alpn_refused || reason == SSL_AD_REASON_OFFSET + SSL_AD_NO_APPLICATION_PROTOCOL) {
    failure.kind = HandshakeFailure::Kind::alpn_mismatch;
  } else if (ERR_GET_LIB(code) == ERR_LIB_SSL && reason >= SSL_AD_REASON_OFFSET) {
    failure.kind = HandshakeFailure::Kind::refused_by_peer;
  }
  return failure;
}

Result<std::array<std::uint8_t, 16>> TlsContext::export_connection_id(SSL* ssl) {
  static constexpr std::string_view label = "EXPORTER-postern-connection-id";
  std::array<std::uint8_t, 16> id{};
  if (SSL_export_keying_material(ssl, id.data(), id.size(), label.data(), label.size(), nullptr, 0, 0) != 1)
    return openssl_error("cannot derive the connection ID");
  return id;
}

}  // namespace postern
