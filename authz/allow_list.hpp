// AllowList: the compiled rules of one workload. Sorted, immutable; each rule keeps the policy and field it came from.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "authz/network_policy.hpp"
#include "authz/verdict.hpp"
#include "base/ip.hpp"

namespace postern {

// The workloads that one canonical (namespaceSelector, podSelector) matches. Policies that use the same selectors share it.
// Members are indexes into the Topology it was made with, ascending; hostNetwork and ended pods are never among them.
struct PeerSet {
  LabelSelector namespaces;
  LabelSelector pods;
  std::vector<std::uint32_t> members;

  bool contains(std::uint32_t workload) const;
  bool operator==(const PeerSet&) const = default;
};
std::string text_of(const PeerSet& set);  // pods app=web in namespaces team=a

struct AnyPeer {
  bool operator==(const AnyPeer&) const = default;
};

// An index into AllowList::peer_sets.
struct PeerSetRef {
  std::uint32_t index = 0;
  bool operator==(const PeerSetRef&) const = default;
};

// One SPIFFE ID that no pod of the cluster has: of another trust domain, or of a path that is no pod's. Whatever its address.
struct SpiffeIdPeer {
  std::string id;
  bool operator==(const SpiffeIdPeer&) const = default;
};

struct AllowedPeer {
  RuleOrigin origin;
  std::variant<AnyPeer, IpBlock, PeerSetRef, SpiffeIdPeer> peer;

  bool operator==(const AllowedPeer&) const = default;
};

// The two verdicts that are always computed: without audit policies; and with them, without what one of them replaces.
enum class Plane : std::uint8_t { enforced, pending };

// Whether a policy, or a rule of one, counts in a plane. It may count in neither: in audit, and replaced by another in audit.
bool counts_in(Plane plane, const auto& item) { return plane == Plane::enforced ? !item.audit : !item.replaced; }

// One rule of one policy, with its ports and peers.
struct AllowRule {
  bool audit = false;             // its policy is in audit: it does not count for the enforced verdict
  bool replaced = false;          // an audit policy replaces its policy: it does not count for the pending verdict
  std::vector<PolicyPort> ports;  // empty: every port of every protocol
  std::vector<AllowedPeer> peers;

  bool operator==(const AllowRule&) const = default;
};

// A policy that selects the workload and lists the direction in its policyTypes.
struct IsolatingPolicy {
  std::string ns;
  std::string policy;
  bool audit = false;
  bool replaced = false;

  bool operator==(const IsolatingPolicy&) const = default;
};

struct AllowDirection {
  std::vector<IsolatingPolicy> isolating;       // by name
  std::optional<EnforcementMode> default_deny;  // mesh-wide defaultPolicy: deny holds for this workload
  std::vector<AllowRule> rules;                 // by policy name, then position in the policy: the first match decides

  // Whether the workload is isolated in this direction, so that only what a rule allows is allowed.
  bool isolated(Plane plane) const;
  bool operator==(const AllowDirection&) const = default;
};

struct AllowList {
  AllowDirection ingress;
  AllowDirection egress;
  std::vector<std::shared_ptr<const PeerSet>> peer_sets;  // in the order of first use
  // Other trust domains whose IDs count as a source that rules for any source and for addresses may match; sorted, each once.
  std::vector<std::string> trust_domains;

  bool allows_trust_domain(std::string_view domain) const;
  const AllowDirection& direction(PolicyDirection direction) const { return direction == PolicyDirection::ingress ? ingress : egress; }
  // By content, also of the peer sets.
  bool operator==(const AllowList& other) const;
};
// The peer in words: those of its set or block, or "anybody". REQUIRES: it is of this list, with its peer sets.
std::string text_of(const AllowList& list, const AllowedPeer& peer);

}  // namespace postern
