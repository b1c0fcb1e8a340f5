// What one decision costs as policies and members grow: decide_bench prints nanoseconds of CPU time per decision.
// The ten different prefix lengths of its ipBlocks are more than a cluster has.
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <vector>

#include "authz/compiler.hpp"
#include "authz/decision_index.hpp"
#include "authz/topology.hpp"

namespace postern {
namespace {

constexpr std::uint32_t groups = 50;

IpAddress address_of(std::uint32_t n) {
  return IpAddress::v4({10, static_cast<std::uint8_t>(n >> 16), static_cast<std::uint8_t>(n >> 8), static_cast<std::uint8_t>(n)});
}

LabelSelector group(std::uint32_t n) { return {.match_labels = {{"group", std::to_string(n % groups)}}, .match_expressions = {}}; }

PolicyRule rule_of(std::uint32_t n) {
  PolicyRule rule;
  PolicyPort port;
  port.port = Port{static_cast<std::uint16_t>(1000 + n * 7 % 60000)};
  if (n % 3 == 0) port.end_port = Port{static_cast<std::uint16_t>(port.port->number + 100)};
  rule.ports = {port};
  PolicyPeer pods;
  pods.pod_selector = group(n);
  PolicyPeer block;
  const Cidr range(address_of(n * 977), 16 + n % 9);
  block.ip_block = IpBlock{.cidr = range, .except = {Cidr(range.address(), 28)}};
  rule.peers = {pods, block};
  return rule;
}

// One pod that every policy selects, and the members that their peer sets share.
ClusterView cluster_of(std::uint32_t policies, std::uint32_t members) {
  ClusterView view;
  for (std::uint32_t i = 0; i < members; ++i) {
    Pod pod;
    pod.workload.ns = "shop";
    pod.workload.name = "pod-" + std::to_string(i);
    pod.workload.uid = std::to_string(i);
    pod.workload.addresses = {address_of(i)};
    pod.labels = {{"group", std::to_string(i % groups)}};
    view.pods.emplace(ObjectKey{pod.workload.ns, pod.workload.name}, pod);
  }
  for (std::uint32_t i = 0; i < policies; ++i) {
    NetworkPolicy policy;
    policy.ns = "shop";
    policy.name = "policy-" + std::to_string(i);
    policy.ingress = {rule_of(i)};
    view.policies.emplace(ObjectKey{policy.ns, policy.name}, policy);
  }
  return view;
}

// CPU time: what else the machine does meanwhile does not count.
double nanoseconds() { return static_cast<double>(std::clock()) * (1e9 / CLOCKS_PER_SEC); }

void measure(std::uint32_t policies, std::uint32_t members) {
  const ClusterView view = cluster_of(policies, members);
  Compiler compiler(view, MeshSettings{});
  const double compile_start = nanoseconds();
  const auto snapshot = compiler.compile({"shop", "pod-0"}, 1).value();
  const double compile_time = nanoseconds() - compile_start;

  // As many different peers as a sidecar talks to, so that the caches see what they would see there.
  std::vector<Peer> peers;
  const auto& workloads = snapshot->topology().workloads();
  for (std::uint32_t i = 0; i < 64; ++i) {
    const Workload& workload = workloads[i * 7919U % workloads.size()];
    peers.push_back({.workload = &workload, .address = address_of(i * 7919U)});  // an address costs the same whoever has it
  }
  constexpr std::uint32_t rounds = 2'000'000;
  std::uint64_t allowed = 0;
  const double start = nanoseconds();
  for (std::uint32_t i = 0; i < rounds; ++i) {
    const Port port{static_cast<std::uint16_t>(1000 + i * 37U % 60000U)};
    allowed += decide(snapshot.get(), PolicyDirection::ingress, peers[i % peers.size()], port).allowed() ? 1 : 0;
  }
  const double spent = nanoseconds() - start;
  std::printf("%5u policies %6u members: %6.1f ns per decision (%4.1f%% allowed), compiled in %.1f ms\n", policies, members, spent / rounds,
              100.0 * static_cast<double>(allowed) / rounds, compile_time / 1e6);
}

}  // namespace
}  // namespace postern

int main() {
  for (const std::uint32_t policies : {10U, 1000U, 5000U}) {
    for (const std::uint32_t members : {10U, 10000U}) postern::measure(policies, members);
  }
}
