// Topology: the pods, nodes and Services that one sidecar, or the engine, knows of, indexed. Immutable; shared by every snapshot made from
// it.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/service_table.hpp"
#include "authz/snapshot_parts.hpp"
#include "authz/workload.hpp"
#include "base/ip.hpp"

namespace postern {

class Topology {
 public:
  // REQUIRES: the pods are sorted by namespace and name, each once, and none has ended; the Services are sorted by name.
  Topology(std::vector<PodRecord> pods, std::vector<ServiceRecord> services, const std::vector<IpAddress>& nodes);
  Topology(const Topology&) = delete;  // records point into each other
  Topology& operator=(const Topology&) = delete;

  // By (namespace, name).
  const std::vector<Workload>& workloads() const { return workloads_; }
  const Workload* find(std::string_view ns, std::string_view name) const;
  // The pod that has this address, never a hostNetwork pod. Where several claim it: one that is not terminating first, then
  // a meshed one, then by name.
  const Workload* at(const IpAddress& address) const;
  // The index of this record, or of today's record of the same pod (namespace, name and UID) if it is from another
  // topology. Nothing for a pod that is not here.
  std::optional<std::uint32_t> index_of(const Workload& workload) const;
  // The name of the node that a pod runs on; empty when it is not known.
  std::string_view node_of(const Workload& workload) const;
  bool is_node(const IpAddress& address) const { return nodes_.contains(address); }
  const ServiceTable& services() const { return services_; }

 private:
  struct Key {
    std::string_view ns;
    std::string_view name;
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    std::size_t operator()(const Key& key) const noexcept {
      return std::hash<std::string_view>{}(key.ns) * 31 + std::hash<std::string_view>{}(key.name);
    }
  };

  std::vector<Workload> workloads_;
  std::vector<std::string> node_names_;                      // beside workloads_
  std::unordered_map<Key, std::uint32_t, KeyHash> by_name_;  // views into workloads_
  std::unordered_map<IpAddress, std::uint32_t, IpAddressHash> by_address_;
  std::unordered_set<IpAddress, IpAddressHash> nodes_;
  ServiceTable services_;
};

}  // namespace postern
