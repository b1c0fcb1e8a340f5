// DeniedIdentities: who is refused whatever policy says: X.509-SVIDs by serial number, workloads by SPIFFE ID.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace postern {

enum class DeniedBy : std::uint8_t { nothing, serial, spiffe_id };
std::string_view name_of(DeniedBy by);  // for the access log: "", "serial", "spiffe_id"

// Part of the mesh's settings. Both lists are sorted, each entry once.
struct DeniedIdentities {
  std::vector<std::string> serials;     // as canonical_serial() writes them
  std::vector<std::string> spiffe_ids;  // whole IDs: an account's does not stand for its pods

  bool empty() const { return serials.empty() && spiffe_ids.empty(); }
  // No allocation; logarithmic in the length of the lists. An empty serial or ID is never denied.
  DeniedBy match(std::string_view spiffe_id, std::string_view serial) const;
  void add(const DeniedIdentities& others);

  bool operator==(const DeniedIdentities&) const = default;
};

}  // namespace postern
