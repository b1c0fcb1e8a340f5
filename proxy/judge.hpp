// judge: what the current policy says of one connection. The first decision and every later one are this function.
#pragma once

#include <memory>
#include <string_view>

#include "authz/snapshot.hpp"
#include "certs/verify.hpp"
#include "proxy/counters.hpp"
#include "proxy/reason.hpp"

namespace postern {

// What a decision depends on, besides the policy.
struct ConnectionFacts {
  Direction direction = Direction::inbound;
  IpAddress peer_address;                        // of the other pod
  Port port;                                     // destination port at the pod
  std::shared_ptr<const PeerIdentity> identity;  // authenticated
  bool tls_under_way = false;                    // no identity yet, but there will be: until then the record at the address counts
};

struct Judgement {
  bool allowed = false;
  Reason reason = Reason::no_policy;  // when not allowed
  std::string_view detail;            // static
  bool decided = false;               // policy was asked: verdict is meaningful
  Verdict verdict;
  const Workload* peer = nullptr;
  bool identity_by_address = false;  // permissive mode
};

// Architecture sections 2, 2b and 3. No allocation (but for plaintext where SPIFFE IDs are denied). A null snapshot refuses: nothing known
// means refused.
Judgement judge(const PolicySnapshot* snapshot, const ConnectionFacts& facts);

// What may arrive from this source at this port (architecture section 2, inbound step 2).
enum class Expectation : std::uint8_t { tls, plaintext, peek };
Expectation expect_inbound(const PolicySnapshot& snapshot, const IpAddress& source, Port port);

// Whether this source should be known, being of the cluster, but is not: worth a look-up.
bool is_unknown_source(const PolicySnapshot& snapshot, const IpAddress& source);

}  // namespace postern
