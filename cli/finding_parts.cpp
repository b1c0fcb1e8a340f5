#include "cli/finding_parts.hpp"

#include "cli/node_path.hpp"

namespace postern::cli {
namespace {

constexpr std::size_t most_named = 3;

}  // namespace

std::string named(const std::set<std::string>& names) {
  std::string out;
  std::size_t count = 0;
  for (const std::string& name : names) {
    if (count++ == most_named) return out + " and " + std::to_string(names.size() - most_named) + " more";
    out += (out.empty() ? "" : ", ") + name;
  }
  return out;
}

std::set<std::string> labelled_namespaces(const ClusterFacts& facts) {
  std::set<std::string> out;
  if (!facts.namespaces) return out;
  for (const Node& ns : *facts.namespaces) {
    if (text_at(ns, {"metadata", "labels", "postern.dev/inject"}) == "enabled") out.insert(text_at(ns, {"metadata", "name"}));
  }
  return out;
}

// As the webhooks choose pods (control/injector.cpp).
bool should_be_injected(const Node& pod, const std::set<std::string>& labelled) {
  const std::string label = text_at(pod, {"metadata", "labels", "postern.dev/inject"});
  if (label == "disabled" || node_at(pod, {"spec", "hostNetwork"}).boolean || text_at(pod, {"spec", "os", "name"}) == "windows")
    return false;
  if (!text_at(pod, {"metadata", "annotations", "kubernetes.io/config.mirror"}).empty()) return false;
  return label == "enabled" || labelled.contains(text_at(pod, {"metadata", "namespace"}));
}

}  // namespace postern::cli
