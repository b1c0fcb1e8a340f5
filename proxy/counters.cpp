#include "proxy/counters.hpp"

#include <algorithm>

namespace postern {
namespace {

constexpr auto bounds_us = [] {
  std::array<std::uint64_t, DurationHistogram::bounds_s.size()> out{};
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<std::uint64_t>(DurationHistogram::bounds_s[i] * 1e6 + 0.5);
  return out;
}();

}  // namespace

std::string_view name_of(Direction direction) {
  switch (direction) {
    case Direction::inbound: return "inbound";
    case Direction::outbound: return "outbound";
  }
  return "inbound";
}

std::string_view name_of(VerdictLabel verdict) {
  switch (verdict) {
    case VerdictLabel::forwarded: return "FORWARDED";
    case VerdictLabel::dropped: return "DROPPED";
    case VerdictLabel::audit: return "AUDIT";
  }
  return "DROPPED";
}

void DurationHistogram::observe_us(std::uint64_t us) {
  // A value on the bound belongs to its bucket: Prometheus' "le".
  const auto bucket = std::lower_bound(bounds_us.begin(), bounds_us.end(), us) - bounds_us.begin();
  buckets_[static_cast<std::size_t>(bucket)].add();
  sum_us_.add(us);
}

}  // namespace postern
