// JSON Patch (RFC 6902) between two versions of an object, small where lists have grown at an end or changed in place.
#pragma once

#include <string>
#include <vector>

#include "base/document.hpp"

namespace postern {

struct PatchOperation {
  enum class Kind : std::uint8_t { add, replace, remove };

  Kind kind = Kind::add;
  std::string path;  // RFC 6901
  Node value;        // not of remove
};

// The operations that make `after` of `before`, in the order to be applied.
std::vector<PatchOperation> json_patch(const Node& before, const Node& after);
// As JSON text.
std::string json_patch_text(const std::vector<PatchOperation>& patch);

}  // namespace postern
