// TlsContext: an SSL_CTX built from one SVID and bundle set, immutable once built. One for each worker and generation, so that
// threads share no OpenSSL lock. It makes SSL objects for both ends; sockets, BIOs and waiting belong to the caller.
#pragma once

#include <array>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/ip.hpp"
#include "certs/openssl.hpp"
#include "certs/session_cache.hpp"
#include "certs/svid.hpp"
#include "certs/ticket_keys.hpp"
#include "certs/trust_bundle.hpp"
#include "certs/verify.hpp"

namespace postern {

inline constexpr std::string_view postern_alpn = "postern/1";          // between sidecars
inline constexpr std::string_view control_alpn = "postern-control/1";  // between a sidecar and the control plane

// Who we are and whom we trust. Immutable once shared.
struct X509Context {
  X509Svid svid;
  TrustBundleSet bundles;
};

// The same SVID and bundles without the private key: for whoever only needs to know who we are.
std::shared_ptr<const X509Context> without_key(const X509Context& context);

// The same SVID, sharing its key, with these bundles.
std::shared_ptr<const X509Context> with_bundles(const X509Context& context, TrustBundleSet bundles);

struct TlsSettings {
  // In order of preference. ML-KEM groups are left out where this OpenSSL lacks them; any other unknown name is an error.
  std::string groups = "X25519MLKEM768:X25519:P-256";
  std::string_view alpn =
      postern_alpn;  // the one protocol that is offered and taken; REQUIRES: at most 255 bytes, lives as long as the context
  bool resumption = true;
  // Inbound: tickets carry the session, sealed with these, and `sessions` is not used. Null: stateful.
  TicketKeysPtr ticket_keys;
  // TCP's end counts as the end of TLS, and so leaves the session good (RFC 8446 section 6.1 asks for no more): where the protocol inside
  // has an end of its own.
  bool tcp_end_is_enough = false;
  std::size_t read_buffer_bytes = 68U << 10;  // read-ahead: four full records; freed while idle
  std::chrono::seconds clock_skew{60};        // at most max_clock_skew
};

// What the access log says of a connection. Views live as long as the SSL (or OpenSSL itself).
struct TlsFacts {
  std::string_view version;
  std::string_view cipher;
  std::string_view group;  // empty where OpenSSL does not say
  bool resumed = false;
};

// Why a handshake failed, for Reason and the log's detail.
struct HandshakeFailure {
  enum class Kind : std::uint8_t {
    certificate_required,  // the client presented none
    identity_rejected,     // `certificate` says why
    alpn_mismatch,         // no common postern/* version
    refused_by_peer,       // the peer sent a fatal alert
    protocol,              // anything else
  };
  Kind kind = Kind::protocol;
  CertificateError certificate = CertificateError::none;
  std::string detail;
};

class TlsContext {
 public:
  // The key is held by the context alone, until retire(). `sessions` may be null: no resumption. An identity with bundles alone, without an
  // SVID, serves a client that has none yet. `generation` is the caller's number for this SVID and bundle set.
  static Result<TlsContext> make(std::shared_ptr<const X509Context> identity, const TlsSettings& settings,
                                 std::shared_ptr<SessionCache> sessions, std::uint64_t generation);

  // The inbound end; a client certificate is required. With `accept_plain_spiffe` a client without our ALPN is served too
  // (used_postern_alpn then says false); otherwise it gets the alert no_application_protocol (RFC 7301 section 3.2). Null: out of memory.
  SslPtr new_server(bool accept_plain_spiffe) const;
  // The inbound end that asks for no certificate: who connects proves itself by other means. Null: out of memory.
  SslPtr new_server_for_anybody() const;
  // The outbound end; offers the session kept for this destination, if any.
  SslPtr new_client(const SocketAddress& destination, bool offer_postern_alpn) const;

  // Gives the key back: no new connection is made any more, those that are there go on. On the thread that makes them.
  void retire() const { key_.reset(); }

  // False once our own SVID has expired: make no new connection with it.
  bool usable(SystemTime now) const;
  std::uint64_t generation() const { return generation_; }
  const X509Context& identity() const { return *identity_; }

  // Who the other end is; null until the handshake is complete. Of a resumed session: as its full handshake proved it.
  static std::shared_ptr<const PeerIdentity> peer_identity(const SSL* ssl);
  // The session of this connection is not offered or accepted any more: the next one proves again who it is, maybe by another certificate.
  static void forget_session(const SSL* ssl);
  static CertificateError verify_error(const SSL* ssl);
  static bool used_postern_alpn(const SSL* ssl);  // settings.alpn was agreed on
  static TlsFacts facts(const SSL* ssl);
  // Drains this thread's error queue. REQUIRES: called right after SSL_do_handshake (or the first SSL_read) failed with SSL_ERROR_SSL.
  static HandshakeFailure handshake_failure(const SSL* ssl);
  // The same 16 bytes at both ends: RFC 8446 section 7.5, label "EXPORTER-postern-connection-id".
  static Result<std::array<std::uint8_t, 16>> export_connection_id(SSL* ssl);

 private:
  TlsContext() = default;
  SslCtxPtr ctx_;  // without the key, which it would keep as long as any connection lives
  mutable KeyPtr key_;
  std::shared_ptr<const X509Context> identity_;  // without the key
  std::uint64_t generation_ = 0;
};

}  // namespace postern
