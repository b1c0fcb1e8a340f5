// What findings about workloads share.
#pragma once

#include <set>
#include <string>

#include "base/document.hpp"
#include "cli/cluster_facts.hpp"

namespace postern::cli {

// The first few, with commas, and how many more there are.
std::string named(const std::set<std::string>& names);
// The namespaces whose pods are injected.
std::set<std::string> labelled_namespaces(const ClusterFacts& facts);
// As the webhooks choose pods (control/injector.cpp). `labelled`: labelled_namespaces().
bool should_be_injected(const Node& pod, const std::set<std::string>& labelled);

}  // namespace postern::cli
