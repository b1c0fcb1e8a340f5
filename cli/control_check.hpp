// Whether a sidecar can reach the control plane from where this runs, and if not, why and what to do.
#pragma once

#include <string>
#include <vector>

namespace postern::cli {

// How connecting to HOST:PORT ended.
enum class Reach { reachable, unanswered, refused, unreachable, unresolved };

struct ReachReport {
  std::string address;
  Reach reach = Reach::unresolved;
  std::string detail;  // what the system said; empty where reachable
};
// Connects to each address that the name has, in turn, for at most `patience_ms` each; the best outcome counts.
ReachReport try_to_reach(const std::string& address, int patience_ms);

// What people are told: one line for each address; where nothing answered anywhere, the likely cause and the NetworkPolicy to add to the
// pod's namespace.
std::string reach_text(const std::vector<ReachReport>& reports);
// At least one address is reachable: that is all a sidecar needs.
bool any_reachable(const std::vector<ReachReport>& reports);

// The NetworkPolicy, as YAML, that lets the sidecars of a namespace (empty: not named) reach the control plane's ports, and DNS.
std::string egress_policy(const std::string& ns, const std::string& mesh_namespace, const std::vector<std::string>& ports);

}  // namespace postern::cli
