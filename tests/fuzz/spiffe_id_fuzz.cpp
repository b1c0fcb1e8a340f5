// SPIFFE IDs: what is accepted is put together again from its parts, and holds only what the standard allows.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "base/spiffe_id.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto id = postern::SpiffeId::parse(text);
  if (!id) {
    if (id.error().message.size() > 400) std::abort();
    return 0;
  }
  if (id->text() != text || text.size() > 2048) std::abort();
  if ("spiffe://" + std::string(id->trust_domain()) + std::string(id->path()) != text) std::abort();
  if (!postern::TrustDomain::parse(id->trust_domain())) std::abort();
  const std::string path = std::string(id->path()) + "/";
  if (path.find("//") != std::string::npos || path.find("/./") != std::string::npos || path.find("/../") != std::string::npos) std::abort();
  if (text.find_first_of("%?#@: \n", 9) != std::string_view::npos || text.find('\0') != std::string_view::npos) std::abort();
  if (const auto pod = id->pod()) {
    std::string again = "/ns/" + std::string(pod->ns) + "/sa/" + std::string(pod->service_account);
    if (!pod->pod.empty()) again += "/pod/" + std::string(pod->pod);
    if (!pod->uid.empty()) again += "/" + std::string(pod->uid);
    if (again != id->path()) std::abort();
  }
  return 0;
}
