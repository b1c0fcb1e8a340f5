#include "proxy/judge.hpp"

#include <algorithm>
#include <string>

#include "authz/topology.hpp"

namespace postern {

namespace {

bool inside_cluster(const PolicySnapshot& snapshot, const IpAddress& address) {
  return std::ranges::any_of(snapshot.settings().cluster_cidrs, [&](const Cidr& cidr) { return cidr.contains(address); });
}

Judgement refuse(Reason reason, std::string_view detail = {}) {
  Judgement judgement;
  judgement.reason = reason;
  judgement.detail = detail;
  return judgement;
}

Judgement ask_policy(const PolicySnapshot& snapshot, const ConnectionFacts& facts, const Peer& peer) {
  const PolicyDirection direction = facts.direction == Direction::inbound ? PolicyDirection::ingress : PolicyDirection::egress;
  Judgement judgement;
  judgement.decided = true;
  judgement.peer = peer.workload;
  judgement.verdict = decide(&snapshot, direction, peer, facts.port);
  judgement.allowed = judgement.verdict.allowed();
  judgement.reason = judgement.allowed ? Reason::finished : Reason::denied;
  return judgement;
}

// A SPIFFE ID that is no pod's: policy may list it, or allow its trust domain.
Judgement judge_outsider(const PolicySnapshot& snapshot, const ConnectionFacts& facts, IdentityError error) {
  Judgement judgement = ask_policy(snapshot, facts, Peer{nullptr, facts.peer_address, false, &facts.identity->id});
  if (judgement.verdict.enforced.basis != Basis::outsider) return judgement;
  const bool foreign = error == IdentityError::wrong_trust_domain;
  judgement.reason = foreign ? Reason::trust_domain_not_allowed : Reason::identity_unknown;
  if (!foreign) judgement.detail = name_of(error);
  return judgement;
}

// Before anything else is asked: whoever is on the list is not to be told what it may do.
Judgement judge_authenticated(const PolicySnapshot& snapshot, const ConnectionFacts& facts) {
  const DeniedBy denied = snapshot.settings().denied.match(facts.identity->id.text(), facts.identity->serial);
  if (denied != DeniedBy::nothing) return refuse(Reason::identity_denied, name_of(denied));
  const IdentityLookup found = snapshot.identify(facts.identity->id, facts.peer_address);
  if (is_outsider(found.error) && facts.direction == Direction::inbound) return judge_outsider(snapshot, facts, found.error);
  if (found.workload == nullptr) return refuse(Reason::identity_unknown, name_of(found.error));
  // Whoever answers at a pod's address must be that pod: an address may have moved on to another one.
  if (facts.direction == Direction::outbound && snapshot.workload_at(facts.peer_address) != found.workload) {
    return refuse(Reason::identity_mismatch);
  }
  return ask_policy(snapshot, facts, Peer{found.workload, facts.peer_address, true});
}

// By its record: whoever is on the list has no plaintext either. Only a mesh with such a list pays for the text.
bool is_denied(const PolicySnapshot& snapshot, const Workload& pod) {
  const DeniedIdentities& denied = snapshot.settings().denied;
  if (denied.spiffe_ids.empty()) return false;
  std::string id =
      "spiffe://" + snapshot.settings().trust_domain.text() + "/ns/" + pod.ns + "/sa/" + pod.service_account + "/pod/" + pod.name;
  if (!pod.uid.empty()) id += "/" + pod.uid;
  return denied.match(id, {}) != DeniedBy::nothing;
}

Judgement judge_plaintext(const PolicySnapshot& snapshot, const ConnectionFacts& facts) {
  const Workload* peer = snapshot.workload_at(facts.peer_address);
  if (peer != nullptr && is_denied(snapshot, *peer)) return refuse(Reason::identity_denied, name_of(DeniedBy::spiffe_id));
  const bool inbound = facts.direction == Direction::inbound;
  const MtlsMode mode = inbound ? snapshot.self().mtls_for(facts.port) : snapshot.self().mtls;
  const bool permissive = mode == MtlsMode::permissive;
  if (peer != nullptr && peer->meshed) {
    // An address of a meshed workload must speak TLS wherever its sidecar (outbound) or this one (inbound) would. Where it is excluded
    // from interception, plaintext is still no proof of who it is: only permissive mode takes the address for it.
    const bool tls_expected = inbound ? peer->intercepts_outbound(facts.port) : peer->intercepts_inbound(facts.port);
    if (tls_expected || (inbound && !permissive)) return refuse(Reason::plaintext_refused);
  }
  Judgement judgement = ask_policy(snapshot, facts, Peer{peer, facts.peer_address, permissive});
  judgement.identity_by_address = permissive && peer != nullptr;
  return judgement;
}

}  // namespace

Judgement judge(const PolicySnapshot* snapshot, const ConnectionFacts& facts) {
  if (snapshot == nullptr) return refuse(Reason::no_policy);
  if (facts.identity) return judge_authenticated(*snapshot, facts);
  if (facts.tls_under_way) return ask_policy(*snapshot, facts, Peer{snapshot->workload_at(facts.peer_address), facts.peer_address, true});
  return judge_plaintext(*snapshot, facts);
}

Expectation expect_inbound(const PolicySnapshot& snapshot, const IpAddress& source, Port port) {
  const Workload* workload = snapshot.workload_at(source);
  if (workload != nullptr && workload->meshed && workload->intercepts_outbound(port)) return Expectation::tls;
  // The port is marked for peers that speak SPIFFE mTLS by themselves: a sidecar of theirs is not in the record.
  if (snapshot.self().mtls_for(port) == MtlsMode::spiffe && !snapshot.is_own_node(source)) return Expectation::peek;
  if (workload != nullptr || snapshot.is_own_node(source) || !inside_cluster(snapshot, source)) return Expectation::plaintext;
  return Expectation::peek;
}

bool is_unknown_source(const PolicySnapshot& snapshot, const IpAddress& source) {
  return snapshot.workload_at(source) == nullptr && !snapshot.is_own_node(source) && !snapshot.topology().is_node(source) &&
         inside_cluster(snapshot, source);
}

}  // namespace postern
