// PolicyReport: what the replicas of the control plane say of the policies, put together: a sidecar is connected to one replica only, and a
// pod that enforces a policy by the word of one replica enforces it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace postern::cli {

struct PodReport {
  std::string state;  // enforced, lagging, disconnected, unmeshed, audit
  std::string since;
  std::string reason;
};

struct PolicyReport {
  std::int64_t generation = 0;
  std::map<std::string, PodReport> pods;  // by namespace/name
  std::vector<std::string> not_enforced;  // rules that a proxy of TCP cannot enforce
};

// The answers of one or several replicas.
struct Report {
  std::map<std::string, PolicyReport> policies;  // by namespace/name
  std::size_t replicas = 0;                      // that have read the cluster
  std::uint64_t lagging_streams = 0;             // of all of them
  // Sidecars without a stream at any replica; nothing: not asked for.
  std::optional<std::set<std::string>> unconnected;
};

// Adds the body of one replica's GET /policies. Of a policy that replicas know in different generations only the newest counts: what was
// acknowledged of an older one says nothing.
Result<void> add_answer(Report& report, std::string_view body);

// Adds the body of one replica's GET /unconnected: a sidecar is connected if one replica says so.
Result<void> add_unconnected(Report& report, std::string_view body);

// What keeps the policies from being in force; empty: nothing.
struct Question {
  std::string policy;                      // namespace/name; empty: all
  std::optional<std::int64_t> generation;  // at least
  bool absent = false;                     // deleted, and no longer enforced anywhere
  bool strict = false;                     // a pod without a sidecar counts, too
};
std::vector<std::string> missing_of(const Report& report, const Question& question);

std::string report_table(const Report& report);
std::string report_json(const Report& report);

}  // namespace postern::cli
