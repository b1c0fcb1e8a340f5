// What /metrics answers: the workers' counters summed at the moment of the scrape, in Prometheus' text format (docs/metrics.md).
#pragma once

#include <string>
#include <vector>

#include "proxy/admin.hpp"
#include "proxy/counters.hpp"

namespace postern {

// Prometheus text exposition format 0.0.4. Any thread may call it while the workers count on.
std::string render_metrics(const std::vector<const WorkerCounters*>& workers, const AdminBackend::Facts& facts);

}  // namespace postern
