// A resource with the content hash of its body: what tells a sidecar's copy from ours.
#pragma once

#include <string>

#include "authz/resource.hpp"
#include "certs/digest.hpp"

namespace postern {

ResourcePtr make_resource(std::string name, std::string body);

}  // namespace postern
