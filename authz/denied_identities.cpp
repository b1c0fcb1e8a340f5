#include "authz/denied_identities.hpp"

#include <algorithm>

namespace postern {
namespace {

bool holds(const std::vector<std::string>& sorted, std::string_view text) {
  return !text.empty() && std::binary_search(sorted.begin(), sorted.end(), text, std::less<>());
}

void merge(std::vector<std::string>& into, const std::vector<std::string>& from) {
  into.insert(into.end(), from.begin(), from.end());
  std::sort(into.begin(), into.end());
  into.erase(std::unique(into.begin(), into.end()), into.end());
}

}  // namespace

std::string_view name_of(DeniedBy by) {
  switch (by) {
    case DeniedBy::nothing: return "";
    case DeniedBy::serial: return "serial";
    case DeniedBy::spiffe_id: return "spiffe_id";
  }
  return "";
}

DeniedBy DeniedIdentities::match(std::string_view spiffe_id, std::string_view serial) const {
  if (holds(serials, serial)) return DeniedBy::serial;
  return holds(spiffe_ids, spiffe_id) ? DeniedBy::spiffe_id : DeniedBy::nothing;
}

void DeniedIdentities::add(const DeniedIdentities& others) {
  merge(serials, others.serials);
  merge(spiffe_ids, others.spiffe_ids);
}

}  // namespace postern
