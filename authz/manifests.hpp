// Manifests -> ClusterView: what a person applies, read as the API server would store it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/decode_common.hpp"
#include "base/document.hpp"
#include "base/result.hpp"

namespace postern {

struct Manifests {
  ClusterView cluster;
  std::vector<Warning> warnings;  // what was accepted, but may not mean what its author thinks
};

// Reads Namespaces, Pods, NetworkPolicies, Services, EndpointSlices and Nodes in any order, also inside a List; other kinds mean nothing.
// One unreadable object, or the same object twice, fails the whole load, so that nothing is ever widened by what was left out.
Result<Manifests> decode_manifests(std::span<const Document> documents);

}  // namespace postern
