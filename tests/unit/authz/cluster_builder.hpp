// ClusterBuilder: a ClusterView written by hand, for tests of the engine.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "authz/cluster.hpp"
#include "authz/compiler.hpp"
#include "authz/snapshot.hpp"

namespace postern::test {

inline IpAddress ip(std::string_view text) { return IpAddress::parse(text).value(); }
inline Cidr cidr(std::string_view text) { return Cidr::parse(text).value(); }
inline SocketAddress at(std::string_view address, std::uint16_t port) { return {ip(address), Port{port}}; }
inline ObjectKey key(std::string_view text) {
  const auto slash = text.find('/');
  return {std::string(text.substr(0, slash)), std::string(text.substr(slash + 1))};
}

inline LabelSelector labelled(Labels labels) { return {.match_labels = std::move(labels), .match_expressions = {}}; }
inline LabelSelector expression(std::string name, SelectorOperator op, std::vector<std::string> values = {}) {
  return {.match_labels = {}, .match_expressions = {{.key = std::move(name), .op = op, .values = std::move(values)}}};
}

inline PolicyPeer pods(LabelSelector selector) {
  PolicyPeer peer;
  peer.pod_selector = std::move(selector);
  return peer;
}
inline PolicyPeer namespaces(LabelSelector selector) {
  PolicyPeer peer;
  peer.namespace_selector = std::move(selector);
  return peer;
}
inline PolicyPeer both(LabelSelector of_namespaces, LabelSelector of_pods) {
  PolicyPeer peer = namespaces(std::move(of_namespaces));
  peer.pod_selector = std::move(of_pods);
  return peer;
}
inline PolicyPeer block(std::string_view text, std::initializer_list<std::string_view> except = {}) {
  IpBlock result{.cidr = cidr(text), .except = {}};
  for (const auto part : except) result.except.push_back(cidr(part));
  PolicyPeer peer;
  peer.ip_block = std::move(result);
  return peer;
}

inline PolicyPort on(std::uint16_t number, Protocol protocol = Protocol::tcp) {
  PolicyPort port;
  port.protocol = protocol;
  port.port = Port{number};
  return port;
}
inline PolicyPort range(std::uint16_t first, std::uint16_t last, Protocol protocol = Protocol::tcp) {
  PolicyPort port = on(first, protocol);
  port.end_port = Port{last};
  return port;
}
inline PolicyPort named(std::string name, Protocol protocol = Protocol::tcp) {
  PolicyPort port;
  port.protocol = protocol;
  port.name = std::move(name);
  return port;
}
inline PolicyPort every(Protocol protocol) {
  PolicyPort port;
  port.protocol = protocol;
  return port;
}

class ClusterBuilder {
 public:
  ClusterView view;
  MeshSettings settings;

  ClusterBuilder() { settings.trust_domain = TrustDomain::parse("example.org").value(); }

  Namespace& ns(std::string name, Labels labels = {}) {
    Namespace& result = view.namespaces[name];
    labels.emplace(std::string(namespace_name_label), name);
    result.name = std::move(name);
    result.labels = std::move(labels);
    return result;
  }

  Pod& pod(std::string_view name, std::string_view address, Labels labels = {}) {
    const ObjectKey id = key(name);
    Pod& result = view.pods[id];
    result.workload.ns = id.ns;
    result.workload.name = id.name;
    result.workload.uid = "uid-" + id.name;
    result.workload.service_account = "default";
    result.workload.addresses = {ip(address)};
    result.workload.meshed = true;
    result.labels = std::move(labels);
    result.node_name = "node-1";
    return result;
  }

  // Selects the pods with these labels; isolates ingress unless told otherwise.
  NetworkPolicy& policy(std::string_view name, LabelSelector selector = {}) {
    const ObjectKey id = key(name);
    NetworkPolicy& result = view.policies[id];
    result.ns = id.ns;
    result.name = id.name;
    result.pod_selector = std::move(selector);
    return result;
  }

  NetworkPolicy& egress_policy(std::string_view name, LabelSelector selector = {}) {
    NetworkPolicy& result = policy(name, std::move(selector));
    result.isolates_ingress = false;
    result.isolates_egress = true;
    return result;
  }

  Service& service(std::string_view name, std::string_view address, Labels selector, std::vector<ServicePort> ports) {
    const ObjectKey id = key(name);
    Service& result = view.services[id];
    result.ns = id.ns;
    result.name = id.name;
    result.cluster_ips = {ip(address)};
    result.selector = std::move(selector);
    result.ports = std::move(ports);
    return result;
  }

  std::shared_ptr<const PolicySnapshot> compile(std::string_view self) const {
    return postern::compile(view, key(self), settings, 1).value();
  }

  // What the snapshot of the pod `self` says of a connection with the pod or address `peer`.
  Verdict verdict(PolicyDirection direction, std::string_view self, std::string_view peer, std::uint16_t port,
                  Protocol protocol = Protocol::tcp) {
    snapshots_.push_back(compile(self));
    return decide(snapshots_.back().get(), direction, peer_of(*snapshots_.back(), peer), Port{port}, protocol);
  }
  Verdict ingress(std::string_view to, std::string_view from, std::uint16_t port, Protocol protocol = Protocol::tcp) {
    return verdict(PolicyDirection::ingress, to, from, port, protocol);
  }
  Verdict egress(std::string_view from, std::string_view to, std::uint16_t port, Protocol protocol = Protocol::tcp) {
    return verdict(PolicyDirection::egress, from, to, port, protocol);
  }

  Peer peer_of(const PolicySnapshot& snapshot, std::string_view who) const {
    if (who.find('/') == std::string_view::npos) return {.workload = snapshot.workload_at(ip(who)), .address = ip(who)};
    const Workload& record = view.pods.at(key(who)).workload;
    return {.workload = record.host_network ? nullptr : &record, .address = record.addresses.front()};
  }

 private:
  std::vector<std::shared_ptr<const PolicySnapshot>> snapshots_;  // verdicts point into them
};

}  // namespace postern::test
