#include "authz/port_map.hpp"

#include <algorithm>
#include <set>

namespace postern {
namespace {

struct Edge {
  std::uint32_t at;  // one more than a port can be, for the end of an interval that includes 65535
  bool opens;
  RuleRank rank;
};

}  // namespace

PortMap::PortMap(const std::vector<PortInterval>& intervals) {
  std::vector<Edge> edges;
  edges.reserve(2 * intervals.size());
  for (const PortInterval& interval : intervals) {
    edges.push_back({interval.first, true, interval.rank});
    edges.push_back({interval.last + 1U, false, interval.rank});
  }
  std::sort(edges.begin(), edges.end(), [](const Edge& a, const Edge& b) { return a.at < b.at; });

  std::multiset<RuleRank> open;
  for (std::size_t i = 0; i < edges.size();) {
    const std::uint32_t at = edges[i].at;
    for (; i < edges.size() && edges[i].at == at; ++i) {
      if (edges[i].opens) {
        open.insert(edges[i].rank);
      } else {
        open.erase(open.find(edges[i].rank));
      }
    }
    if (open.empty()) continue;  // the last edge closes everything, so there is a next edge below
    const auto first = static_cast<std::uint16_t>(at);
    const auto last = static_cast<std::uint16_t>(edges[i].at - 1);
    const RuleRank winner = *open.begin();
    if (!intervals_.empty() && intervals_.back().rank == winner && intervals_.back().last + 1 == first) {
      intervals_.back().last = last;
    } else {
      intervals_.push_back({first, last, winner});
    }
  }
}

RuleRank PortMap::find(Port port) const {
  const auto after = std::upper_bound(intervals_.begin(), intervals_.end(), port.number,
                                      [](std::uint16_t number, const PortInterval& interval) { return number < interval.first; });
  if (after == intervals_.begin()) return no_rank;
  const PortInterval& candidate = *std::prev(after);
  return port.number <= candidate.last ? candidate.rank : no_rank;
}

}  // namespace postern
