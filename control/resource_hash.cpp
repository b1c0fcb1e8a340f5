#include "control/resource_hash.hpp"

#include <memory>
#include <utility>

namespace postern {

ResourcePtr make_resource(std::string name, std::string body) {
  auto resource = std::make_shared<Resource>();
  resource->hash = content_hash(body);
  resource->name = std::move(name);
  resource->body = std::move(body);
  return resource;
}

}  // namespace postern
