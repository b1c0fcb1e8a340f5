// The content hash of a resource's body: what tells a sidecar's copy from ours.
#pragma once

#include <string>
#include <string_view>

#include "authz/resource.hpp"

namespace postern {

// The first 16 bytes of SHA-256, in hexadecimal.
std::string content_hash(std::string_view body);
ResourcePtr make_resource(std::string name, std::string body);

}  // namespace postern
