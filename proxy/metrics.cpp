#include "proxy/metrics.hpp"

#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <utility>

namespace postern {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;
using Workers = std::vector<const WorkerCounters*>;

constexpr std::array directions{Direction::inbound, Direction::outbound};
constexpr std::array verdicts{VerdictLabel::forwarded, VerdictLabel::dropped, VerdictLabel::audit};

std::size_t index(Direction d) { return static_cast<std::size_t>(d); }
std::size_t index(VerdictLabel v) { return static_cast<std::size_t>(v); }
std::string_view reason_name(std::size_t i) { return name_of(static_cast<Reason>(i)); }

ClientMetric::Label label(std::string_view name, std::string_view value) { return {std::string(name), std::string(value)}; }
Labels direction_label(Direction d) { return {label("direction", name_of(d))}; }

// The sum over all workers of what `pick` yields.
template <class Pick>
std::uint64_t sum(const Workers& workers, Pick pick) {
  std::uint64_t total = 0;
  for (const WorkerCounters* worker : workers) total += pick(*worker).value();
  return total;
}

class Family {
 public:
  Family(std::string_view name, std::string_view help, MetricType type) {
    family_.name = name;
    family_.help = help;
    family_.type = type;
  }

  void add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (family_.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    family_.metric.push_back(std::move(metric));
  }
  void add(Labels labels, std::uint64_t value) { add(std::move(labels), static_cast<double>(value)); }

  void add_histogram(Labels labels, const std::vector<const DurationHistogram*>& parts) {
    ClientMetric metric;
    metric.label = std::move(labels);
    std::uint64_t cumulative = 0;
    std::uint64_t sum_us = 0;
    for (std::size_t i = 0; i <= DurationHistogram::bounds_s.size(); ++i) {
      for (const DurationHistogram* part : parts) cumulative += part->bucket(i).value();
      const bool last = i == DurationHistogram::bounds_s.size();
      metric.histogram.bucket.push_back({cumulative, last ? std::numeric_limits<double>::infinity() : DurationHistogram::bounds_s[i]});
    }
    for (const DurationHistogram* part : parts) sum_us += part->sum_us();
    metric.histogram.sample_count = cumulative;
    metric.histogram.sample_sum = static_cast<double>(sum_us) / 1e6;
    family_.metric.push_back(std::move(metric));
  }

  // A family without a series says nothing: it is left out.
  void move_to(std::vector<MetricFamily>& out) && {
    if (!family_.metric.empty()) out.push_back(std::move(family_));
  }

 private:
  MetricFamily family_;
};

class Collector : public prometheus::Collectable {
 public:
  Collector(const Workers& workers, const AdminBackend::Facts& facts) : workers_(workers), facts_(facts) {}

  std::vector<MetricFamily> Collect() const override {
    std::vector<MetricFamily> out;
    collect_connections(out);
    collect_handshakes(out);
    collect_pool_and_workers(out);
    collect_facts(out);
    return out;
  }

 private:
  using PerDirection = std::array<Counter, direction_count> WorkerCounters::*;

  void per_direction(Family& family, PerDirection member, Labels extra = {}) const {
    for (const Direction d : directions) {
      Labels labels = direction_label(d);
      labels.insert(labels.end(), extra.begin(), extra.end());
      family.add(std::move(labels), sum(
                                        workers_, [&](const WorkerCounters& w) -> auto& { return (w.*member)[index(d)]; }));
    }
  }

  void single(std::vector<MetricFamily>& out, std::string_view name, std::string_view help, MetricType type,
              Counter WorkerCounters::*member) const {
    Family family(name, help, type);
    family.add({}, sum(
                       workers_, [&](const WorkerCounters& w) -> auto& { return w.*member; }));
    std::move(family).move_to(out);
  }

  template <class Pick>
  std::vector<const DurationHistogram*> histograms(Pick pick) const {
    std::vector<const DurationHistogram*> parts;
    for (const WorkerCounters* worker : workers_) parts.push_back(&pick(*worker));
    return parts;
  }

  void collect_connections(std::vector<MetricFamily>& out) const {
    Family opened("postern_connections_opened_total", "Application connections opened.", MetricType::Counter);
    per_direction(opened, &WorkerCounters::connections_opened);
    std::move(opened).move_to(out);

    // Only what has happened: the full product would be hundreds of series of zero.
    Family closed("postern_connections_closed_total", "Application connections ended, by verdict and close reason.", MetricType::Counter);
    for (const Direction d : directions) {
      for (const VerdictLabel v : verdicts) {
        for (std::size_t r = 0; r < reason_count; ++r) {
          const auto n = sum(
              workers_, [&](const WorkerCounters& w) -> auto& { return w.connections_closed[index(d)][index(v)][r]; });
          if (n == 0) continue;
          closed.add({label("direction", name_of(d)), label("verdict", name_of(v)), label("reason", reason_name(r))}, n);
        }
      }
    }
    std::move(closed).move_to(out);

    Family active("postern_connections_active", "Application connections open now.", MetricType::Gauge);
    per_direction(active, &WorkerCounters::connections_active);
    std::move(active).move_to(out);

    Family bytes("postern_bytes_total", "Application bytes, sent towards the destination or received from it.", MetricType::Counter);
    per_direction(bytes, &WorkerCounters::bytes_sent, {label("way", "sent")});
    per_direction(bytes, &WorkerCounters::bytes_received, {label("way", "received")});
    std::move(bytes).move_to(out);

    Family shed("postern_connections_shed_total", "Connections closed at accept, by reason.", MetricType::Counter);
    for (std::size_t r = 0; r < reason_count; ++r) {
      const auto n = sum(
          workers_, [&](const WorkerCounters& w) -> auto& { return w.shed[r]; });
      if (n != 0) shed.add({label("reason", reason_name(r))}, n);
    }
    std::move(shed).move_to(out);

    Family connect("postern_connect_duration_seconds", "TCP connect to the destination or the application.", MetricType::Histogram);
    connect.add_histogram({}, histograms([](const WorkerCounters& w) -> auto& { return w.connect_duration; }));
    std::move(connect).move_to(out);
  }

  void collect_handshakes(std::vector<MetricFamily>& out) const {
    Family done("postern_handshakes_total", "TLS handshakes completed, full or resumed.", MetricType::Counter);
    per_direction(done, &WorkerCounters::handshakes_full, {label("kind", "full")});
    per_direction(done, &WorkerCounters::handshakes_resumed, {label("kind", "resumed")});
    std::move(done).move_to(out);

    Family failed("postern_handshakes_failed_total", "TLS handshakes that failed, by reason.", MetricType::Counter);
    for (const Direction d : directions) {
      for (std::size_t r = 0; r < reason_count; ++r) {
        const auto n = sum(
            workers_, [&](const WorkerCounters& w) -> auto& { return w.handshakes_failed[index(d)][r]; });
        if (n != 0) failed.add({label("direction", name_of(d)), label("reason", reason_name(r))}, n);
      }
    }
    std::move(failed).move_to(out);

    Family active("postern_handshakes_active", "TLS handshakes under way now.", MetricType::Gauge);
    per_direction(active, &WorkerCounters::handshakes_active);
    std::move(active).move_to(out);

    Family duration("postern_handshake_duration_seconds", "TLS handshakes, from the first byte to the last.", MetricType::Histogram);
    for (const Direction d : directions) {
      duration.add_histogram(direction_label(d),
                             histograms([&](const WorkerCounters& w) -> auto& { return w.handshake_duration[index(d)]; }));
    }
    std::move(duration).move_to(out);
  }

  void collect_pool_and_workers(std::vector<MetricFamily>& out) const {
    single(out, "postern_streams_recycled_total", "Application connections that used an already open TLS connection.", MetricType::Counter,
           &WorkerCounters::streams_recycled);
    single(out, "postern_pool_idle_connections", "Idle TLS connections kept for reuse.", MetricType::Gauge, &WorkerCounters::pool_idle);
    single(out, "postern_accept_pauses_total", "Times that accepting stopped for lack of descriptors.", MetricType::Counter,
           &WorkerCounters::accept_pauses);
    single(out, "postern_access_records_dropped_total", "Access-log records dropped because the queue was full.", MetricType::Counter,
           &WorkerCounters::access_records_dropped);
    Family delay("postern_loop_delay_seconds", "Workers' event loops: from ready to served.", MetricType::Histogram);
    delay.add_histogram({}, histograms([](const WorkerCounters& w) -> auto& { return w.loop_delay; }));
    std::move(delay).move_to(out);
  }

  void collect_facts(std::vector<MetricFamily>& out) const {
    Family expiry("postern_svid_expiry_timestamp_seconds", "When the SVID in use expires, unix time; 0: there is none.", MetricType::Gauge);
    expiry.add({}, facts_.svid_expiry_seconds);
    std::move(expiry).move_to(out);

    Family age("postern_policy_age_seconds",
               "Since the policy in force was made, or last confirmed by the control plane; absent while there is none.",
               MetricType::Gauge);
    if (facts_.policy_age_seconds >= 0) age.add({}, facts_.policy_age_seconds);
    std::move(age).move_to(out);

    // In force means adopted by every worker, so the slowest one counts.
    std::uint64_t generation = workers_.empty() ? facts_.policy_generation : std::numeric_limits<std::uint64_t>::max();
    for (const WorkerCounters* worker : workers_) generation = std::min(generation, worker->policy_generation.value());
    Family policy("postern_policy_generation", "Generation of the policy that every worker enforces; 0: none.", MetricType::Gauge);
    policy.add({}, generation);
    std::move(policy).move_to(out);

    Family rejected("postern_policy_rejected_total", "Policy updates refused; the last good one stays.", MetricType::Counter);
    rejected.add({}, facts_.policy_rejected);
    std::move(rejected).move_to(out);

    Family identity("postern_identity_rejected_total", "Identity updates refused; the last good one stays.", MetricType::Counter);
    identity.add({}, facts_.identity_rejected);
    std::move(identity).move_to(out);
    collect_control(out);
  }

  void collect_control(std::vector<MetricFamily>& out) const {
    if (!facts_.control) return;
    const AdminBackend::ControlFacts& control = *facts_.control;
    const auto one = [&out](std::string_view name, std::string_view help, MetricType type, std::uint64_t value) {
      Family family(name, help, type);
      family.add({}, value);
      std::move(family).move_to(out);
    };
    one("postern_control_connected", "1 while the control plane's stream is up and what it sent last is enforced.", MetricType::Gauge,
        control.connected ? 1 : 0);
    one("postern_control_updates_total", "Updates enforced and acknowledged.", MetricType::Counter, control.updates);
    one("postern_control_refused_total", "Updates and kept states refused.", MetricType::Counter, control.refused);
    one("postern_control_streams_total", "Streams to the control plane begun; beyond the first, reconnects.", MetricType::Counter,
        control.streams);
    one("postern_control_lookups_total", "Addresses that the control plane was asked about.", MetricType::Counter, control.lookups);
  }

  const Workers& workers_;
  const AdminBackend::Facts& facts_;
};

}  // namespace

std::string render_metrics(const std::vector<const WorkerCounters*>& workers, const AdminBackend::Facts& facts) {
  return prometheus::TextSerializer{}.Serialize(Collector(workers, facts).Collect());
}

}  // namespace postern
