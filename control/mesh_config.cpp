#include "control/mesh_config.hpp"

#include <algorithm>
#include <string>
#include <string_view>

#include "authz/mesh_names.hpp"
#include "base/config_table.hpp"
#include "base/config_values.hpp"

namespace postern {
namespace {

using config_value::Boolean;
using config_value::Choice;
using config_value::CidrList;
using config_value::SerialList;
using config_value::SpiffeIdList;
using config_value::TrustDomainName;

constexpr std::string_view settings_key = "mesh.yaml";
constexpr std::string_view epoch_key = "epoch";
constexpr std::size_t longest_epoch = 128;

template <class Value, class Access>
ConfigField<MeshSettings> field(std::string_view path, Access access, std::string_view doc) {
  return config_field<MeshSettings, Value>(path, access, doc);
}

ConfigTable<MeshSettings> mesh_table() {
  return {{
              field<TrustDomainName>(
                  "trustDomain", [](auto& s) -> auto& { return s.trust_domain; }, "Trust domain of the mesh."),
              field<Choice<default_policy_names>>(
                  "defaultPolicy", [](auto& s) -> auto& { return s.default_policy; }, "What holds for a pod that no policy selects."),
              field<Choice<node_traffic_names>>(
                  "nodeTraffic", [](auto& s) -> auto& { return s.node_traffic; }, "What a pod's own node may reach."),
              field<Choice<mtls_mode_names>>(
                  "mtls", [](auto& s) -> auto& { return s.mtls; }, "Whether plaintext may count as a pod."),
              field<Boolean>(
                  "audit", [](auto& s) -> auto& { return s.audit; }, "Every policy is only audited."),
              field<CidrList>(
                  "clusterCidrs", [](auto& s) -> auto& { return s.cluster_cidrs; }, "Ranges of pods and Services."),
              field<SerialList>(
                  "denied.serials", [](auto& s) -> auto& { return s.denied.serials; }, "Serial numbers of refused certificates."),
              field<SpiffeIdList>(
                  "denied.spiffeIds", [](auto& s) -> auto& { return s.denied.spiffe_ids; }, "Refused SPIFFE IDs."),
          },
          {{"denied", "Identities that are refused whatever policy says."}}};
}

Error refused(std::string_view field, std::string message) {
  return {.message = std::move(message), .where = "data." + std::string(field)};
}

}  // namespace

Result<MeshConfig> decode_mesh_config(const Node& config_map, const MeshConfig& defaults) {
  MeshConfig config = defaults;
  const Node* binary = config_map.find("binaryData");
  if (binary != nullptr && !binary->fields.empty()) {
    return Error{.message = "not read; put the settings in data, under \"mesh.yaml\"", .where = "binaryData"};
  }
  const Node* data = config_map.find("data");
  if (data == nullptr || data->is(Node::Kind::null)) return config;
  if (!data->is(Node::Kind::mapping)) return Error{.message = "expected a mapping of strings", .where = "data"};
  for (const auto& [key, value] : data->fields) {
    if (!value.is(Node::Kind::string)) return refused(key, "expected a string; found " + std::string(name_of(value.kind)));
    if (key == settings_key) {
      auto settings = mesh_table().parse(value.scalar, "data.mesh.yaml", defaults.settings);
      if (!settings) return settings.error();
      if (settings->trust_domain.text().empty())
        return refused("mesh.yaml: trustDomain", "empty; expected a trust domain such as cluster.local");
      config.settings = *std::move(settings);
    } else if (key == epoch_key) {
      const bool is_graphic = std::all_of(value.scalar.begin(), value.scalar.end(), [](char c) { return c > ' ' && c < '\x7f'; });
      if (value.scalar.size() > longest_epoch || !is_graphic) {
        return refused(key, "expected at most 128 letters, digits and signs without spaces, such as restored-2030-01-31");
      }
      config.epoch = value.scalar;
    } else {
      return refused(key, "unknown; expected one of mesh.yaml, epoch");
    }
  }
  return config;
}

}  // namespace postern
