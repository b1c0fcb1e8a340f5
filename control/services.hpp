// Services: every Service that can be dialled, resolved, by name, by address and by endpoint.
#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/ip.hpp"
#include "control/cluster_store.hpp"
#include "control/scope_graph.hpp"

namespace postern {

class Services {
 public:
  // REQUIRES: both outlive this.
  Services(const ClusterStore& store, graph::Pods& pods) : store_(store), pods_(pods) {}
  Services(const Services&) = delete;
  Services& operator=(const Services&) = delete;

  // Resolves the Service again, and marks what follows where the outcome is another.
  void renew(const ObjectKey& key, const std::vector<graph::Scope*>& node_lookers);
  // Those of a namespace whose endpoints are found by their selector, for lack of EndpointSlices: any pod there may change them.
  std::vector<ObjectKey> by_selector(const std::string& ns) const;

  graph::ServiceNode* find(const ObjectKey& key);
  std::vector<graph::ServiceNode*> at(const IpAddress& address) const;
  std::vector<graph::ServiceNode*> with_node_port() const { return {node_ports_.begin(), node_ports_.end()}; }
  const ResourcePtr& resource(graph::ServiceNode& service) const;
  // Forgets a Service that is gone once nobody refers to it.
  void release(graph::ServiceNode& service);

 private:
  void set_record(graph::ServiceNode& service, std::optional<ServiceRecord> record);
  void set_pods(graph::ServiceNode& service);

  const ClusterStore& store_;
  graph::Pods& pods_;
  std::map<ObjectKey, graph::ServiceNode> services_;
  std::map<std::string, std::set<ObjectKey>> by_selector_;  // by namespace
  std::unordered_map<IpAddress, std::vector<graph::ServiceNode*>, IpAddressHash> at_;
  std::set<graph::ServiceNode*> node_ports_;
};

}  // namespace postern
