#include "proxy/reason.hpp"

namespace postern {

std::string_view name_of(Reason reason) {
  switch (reason) {
    case Reason::finished: return "finished";
    case Reason::reset: return "reset";
    case Reason::truncated: return "truncated";
    case Reason::idle: return "idle";
    case Reason::policy_changed: return "policy_changed";
    case Reason::drained: return "drained";
    case Reason::shutdown: return "shutdown";
    case Reason::no_original_destination: return "no_original_destination";
    case Reason::reserved_port: return "reserved_port";
    case Reason::descriptors_exhausted: return "descriptors_exhausted";
    case Reason::too_many_connections: return "too_many_connections";
    case Reason::too_many_handshakes: return "too_many_handshakes";
    case Reason::too_many_from_source: return "too_many_from_source";
    case Reason::handshake_timeout: return "handshake_timeout";
    case Reason::handshake_failed: return "handshake_failed";
    case Reason::certificate_required: return "certificate_required";
    case Reason::identity_rejected: return "identity_rejected";
    case Reason::identity_unknown: return "identity_unknown";
    case Reason::trust_domain_not_allowed: return "trust_domain_not_allowed";
    case Reason::identity_denied: return "identity_denied";
    case Reason::identity_mismatch: return "identity_mismatch";
    case Reason::svid_missing: return "svid_missing";
    case Reason::alpn_mismatch: return "alpn_mismatch";
    case Reason::stale_record: return "stale_record";
    case Reason::plaintext_refused: return "plaintext_refused";
    case Reason::denied: return "denied";
    case Reason::no_policy: return "no_policy";
    case Reason::destination_unknown: return "destination_unknown";
    case Reason::no_endpoint: return "no_endpoint";
    case Reason::connect_failed: return "connect_failed";
    case Reason::connect_timeout: return "connect_timeout";
    case Reason::app_unreachable: return "app_unreachable";
    case Reason::app_timeout: return "app_timeout";
    case Reason::peer_denied: return "peer_denied";
    case Reason::peer_overloaded: return "peer_overloaded";
    case Reason::peer_failed: return "peer_failed";
    case Reason::protocol_error: return "protocol_error";
    case Reason::internal_error: return "internal_error";
    case Reason::count_: break;
  }
  return "internal_error";
}

}  // namespace postern
