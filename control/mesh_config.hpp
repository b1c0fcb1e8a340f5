// The mesh's ConfigMap: what holds for the whole mesh, changed by an edit.
#pragma once

#include "base/document.hpp"
#include "base/result.hpp"
#include "control/watch_event.hpp"

namespace postern {

// Reads a v1 ConfigMap: data["mesh.yaml"] has the fields of the sidecar's `mesh` block but for nodeAddresses, which are each pod's own; and
// data.epoch. What it does not name is as in `defaults`. An unknown key or a bad value is refused, naming the field and what is valid.
Result<MeshConfig> decode_mesh_config(const Node& config_map, const MeshConfig& defaults);

}  // namespace postern
