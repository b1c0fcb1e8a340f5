// Why a connection ended: the closed enumeration of the access log's close.reason and the metrics' reason label.
#pragma once

#include <cstdint>
#include <string_view>

namespace postern {

enum class Reason : std::uint8_t {
  finished,                 // both directions ended cleanly
  reset,                    // one of the ends reset the connection
  truncated,                // TCP end without END / close_notify
  idle,                     // idle timeout
  policy_changed,           // no longer allowed by the current policy
  drained,                  // the drain period ended
  shutdown,                 // a second signal, or the admin's order
  no_original_destination,  // not redirected to us: refused, so that no loop is possible
  reserved_port,            // asked for a port of the sidecar itself
  descriptors_exhausted,
  too_many_connections,
  too_many_handshakes,
  too_many_from_source,
  handshake_timeout,
  handshake_failed,          // TLS failed before an identity was known
  certificate_required,      // the peer presented none
  identity_rejected,         // the certificate or SPIFFE ID is not acceptable (access log: detail)
  identity_unknown,          // verified, but no such workload (deleted pod, other account, other address)
  trust_domain_not_allowed,  // verified, of another trust domain, which neither namespace nor policy allows here
  identity_denied,           // refused by the mesh's deny-list (detail: serial or spiffe_id)
  identity_mismatch,         // outbound: somebody else answered
  svid_missing,              // we have no valid SVID: fail closed
  alpn_mismatch,             // no common postern/* version
  stale_record,              // a postern/* ClientHello where plaintext was expected
  plaintext_refused,         // a meshed address must speak TLS
  denied,                    // no rule allows it
  no_policy,                 // no policy yet
  destination_unknown,
  no_endpoint,     // a Service without endpoints
  connect_failed,  // outbound: could not connect to the destination
  connect_timeout,
  app_unreachable,  // inbound: the application does not listen
  app_timeout,      // inbound: the application did not accept in time
  peer_denied,      // outbound: the inbound side said no
  peer_overloaded,
  peer_failed,     // outbound: the inbound side said anything else, or went away before its status
  protocol_error,  // unknown frame, out of order, too long
  internal_error,
  count_  // not a reason
};

// snake_case, as in the enumeration.
std::string_view name_of(Reason reason);

}  // namespace postern
