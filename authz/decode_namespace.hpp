// Document -> Namespace and ClusterNode: only the fields that decisions use; others are left alone.
#pragma once

#include "authz/cluster.hpp"
#include "authz/decode_common.hpp"
#include "base/result.hpp"

namespace postern {

// With the label kubernetes.io/metadata.name, which the API server sets whatever the manifest says.
Namespace decode_namespace(const Field& object);
ClusterNode decode_node(const Field& object);

Result<Namespace> decode_namespace(const Document& document);
Result<ClusterNode> decode_node(const Document& document);

}  // namespace postern
