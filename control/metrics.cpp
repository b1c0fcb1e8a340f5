#include "control/metrics.hpp"

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

class Families {
 public:
  void gauge(std::string_view name, std::string_view help, double value) { add(begin(name, help, MetricType::Gauge), {}, value); }
  void counter(std::string_view name, std::string_view help, std::uint64_t value) {
    add(begin(name, help, MetricType::Counter), {}, static_cast<double>(value));
  }

  MetricFamily& begin(std::string_view name, std::string_view help, MetricType type) {
    MetricFamily family;
    family.name = name;
    family.help = help;
    family.type = type;
    return all_.emplace_back(std::move(family));
  }

  static void add(MetricFamily& family, Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    (family.type == MetricType::Counter ? metric.counter.value : metric.gauge.value) = value;
    family.metric.push_back(std::move(metric));
  }

  void histogram(std::string_view name, std::string_view help, const DurationBuckets& buckets) {
    ClientMetric metric;
    std::uint64_t cumulative = 0;
    for (std::size_t i = 0; i <= DurationBuckets::bounds_s.size(); ++i) {
      const bool last = i == DurationBuckets::bounds_s.size();
      cumulative += buckets.count(i);
      metric.histogram.bucket.push_back({cumulative, last ? std::numeric_limits<double>::infinity() : DurationBuckets::bounds_s[i]});
    }
    metric.histogram.sample_count = cumulative;
    metric.histogram.sample_sum = buckets.sum_s();
    begin(name, help, MetricType::Histogram).metric.push_back(std::move(metric));
  }

  // A family without a series says nothing: it is left out.
  std::string text() const {
    std::vector<MetricFamily> shown;
    std::copy_if(all_.begin(), all_.end(), std::back_inserter(shown), [](const MetricFamily& family) { return !family.metric.empty(); });
    return prometheus::TextSerializer().Serialize(shown);
  }

 private:
  std::vector<MetricFamily> all_;
};

Labels label(std::string_view name, std::string_view value) { return {{std::string(name), std::string(value)}}; }

void add_streams(Families& out, const PolicyServer::Stats& server) {
  out.gauge("postern_control_streams", "Streams of sidecars open now.", static_cast<double>(server.open));
  out.gauge("postern_control_streams_serving", "Of these: past their Hello and in step with this replica.",
            static_cast<double>(server.serving));
  out.gauge("postern_control_streams_outstanding", "Of these: an update is under way.", static_cast<double>(server.outstanding));
  out.gauge("postern_control_handshakes", "Connections that have not said hello yet.", static_cast<double>(server.handshaking));
  out.counter("postern_control_connections_total", "Connections accepted.", server.accepted);
  out.counter("postern_control_tls_resumed_total", "TLS handshakes that resumed a session.", server.tls_resumed);
  MetricFamily& ended =
      out.begin("postern_control_streams_ended_total", "Connections and streams that have ended, by reason.", MetricType::Counter);
  for (const auto& [reason, count] : server.ended) Families::add(ended, label("reason", reason), static_cast<double>(count));
  out.counter("postern_control_updates_total", "Updates sent.", server.streams.updates);
  out.counter("postern_control_resources_total", "Resources in these updates.", server.streams.resources);
  out.counter("postern_control_deltas_total", "Of these: sent as edits to what the sidecar has.", server.streams.deltas);
  out.counter("postern_control_acks_total", "Updates acknowledged: enforced.", server.streams.acks);
  out.counter("postern_control_nacks_total", "Updates refused by a sidecar.", server.streams.nacks);
  out.counter("postern_control_sent_bytes_total", "Bytes of messages to sidecars.", server.bytes_sent);
  out.counter("postern_control_received_bytes_total", "Bytes of messages of sidecars.", server.bytes_received);
  MetricFamily& lookups = out.begin("postern_control_lookups_total", "Look-ups of addresses, by result.", MetricType::Counter);
  Families::add(lookups, label("result", "known"), static_cast<double>(server.streams.lookups_known));
  Families::add(lookups, label("result", "unknown"), static_cast<double>(server.streams.lookups_unknown));
  Families::add(lookups, label("result", "limited"), static_cast<double>(server.streams.lookups_limited));
}

void add_watches(Families& out, const std::vector<WatchFacts>& watches) {
  const auto family = [&](std::string_view name, std::string_view help, MetricType type, auto value) {
    MetricFamily& made = out.begin(name, help, type);
    for (const WatchFacts& watch : watches) Families::add(made, label("kind", name_of(watch.kind)), static_cast<double>(value(watch)));
  };
  family("postern_control_watch_synced", "1: this kind has been listed.", MetricType::Gauge,
         [](const WatchFacts& w) { return w.synced ? 1 : 0; });
  family("postern_control_watch_open", "1: its watch is open now.", MetricType::Gauge,
         [](const WatchFacts& w) { return w.watching ? 1 : 0; });
  family("postern_control_watch_silence_seconds", "Since the API server's latest sign of life; -1: none yet.", MetricType::Gauge,
         [](const WatchFacts& w) { return w.silence_seconds; });
  family("postern_control_watch_relists_total", "Complete lists.", MetricType::Counter, [](const WatchFacts& w) { return w.relists; });
  family("postern_control_watch_events_total", "Changes that came by watch.", MetricType::Counter,
         [](const WatchFacts& w) { return w.events; });
  family("postern_control_watch_errors_total", "Lists and watches that failed.", MetricType::Counter,
         [](const WatchFacts& w) { return w.errors; });
  family("postern_control_watch_asked_total", "How often the API server was asked how far it is, for a sidecar that had seen more.",
         MetricType::Counter, [](const WatchFacts& w) { return w.asked; });
  family("postern_control_objects_unreadable_total", "Objects that could not be read; their last good version stays.", MetricType::Counter,
         [](const WatchFacts& w) { return w.unreadable; });
}

void add_webhooks(Families& out, const WebhookFacts& facts) {
  MetricFamily& reviews =
      out.begin("postern_control_admission_reviews_total", "Pods that the webhooks were asked about, by outcome.", MetricType::Counter);
  for (const auto& [outcome, count] : {std::pair{"injected", facts.server.injected}, std::pair{"left_alone", facts.server.left_alone},
                                       std::pair{"denied", facts.server.denied}, std::pair{"validated", facts.server.validated},
                                       std::pair{"malformed", facts.server.malformed}}) {
    Families::add(reviews, label("outcome", outcome), static_cast<double>(count));
  }
  out.counter("postern_control_webhook_handshakes_failed_total", "TLS handshakes with the webhooks that failed.",
              facts.server.handshakes_failed);
  out.gauge("postern_control_pods_without_sidecar", "Pods that should have a sidecar and have none.",
            static_cast<double>(facts.uninjected));
}

void add_federation(Families& out, const std::vector<Federation::Facts>& federation) {
  const auto family = [&](std::string_view name, std::string_view help, MetricType type, const auto& value) {
    MetricFamily& added = out.begin(name, help, type);
    for (const Federation::Facts& one : federation) Families::add(added, label("trust_domain", one.trust_domain), value(one));
  };
  family("postern_control_federated_authorities", "Authorities in the trust bundle of another trust domain; 0: nobody of it is trusted.",
         MetricType::Gauge, [](const auto& one) { return static_cast<double>(one.authorities); });
  family("postern_control_federated_sequence", "spiffe_sequence of that bundle; 0: it has none.", MetricType::Gauge,
         [](const auto& one) { return static_cast<double>(one.sequence.value_or(0)); });
  family("postern_control_federated_refused_total", "Retrievals that failed, and bundles that could not be taken.", MetricType::Counter,
         [](const auto& one) { return static_cast<double>(one.refused); });
  family("postern_control_federated_retrieved_timestamp_seconds",
         "When the bundle endpoint last answered with a bundle, in unix time; 0: never, or a file.", MetricType::Gauge,
         [](const auto& one) { return one.retrieved_at_seconds; });
}

}  // namespace

void DurationBuckets::observe(double seconds) {
  const auto at = std::lower_bound(bounds_s.begin(), bounds_s.end(), seconds);
  ++counts_[static_cast<std::size_t>(at - bounds_s.begin())];
  sum_ += seconds;
}

std::string render_metrics(const ControlFacts& facts) {
  Families out;
  out.gauge("postern_control_ready", "1: every kind is listed, and there is an SVID.", facts.ready ? 1 : 0);
  add_streams(out, facts.server);
  out.histogram("postern_control_flush_duration_seconds", "Working out what changes mean, per batch.", facts.flush);
  out.counter("postern_control_recompiled_total", "Allow lists and peer sets made anew.", facts.publisher.recompiled);
  out.gauge("postern_control_peer_sets", "Peer sets in use.", static_cast<double>(facts.publisher.peer_sets));
  out.gauge("postern_control_allow_lists", "Distinct allow lists in use.", static_cast<double>(facts.publisher.allow_lists));
  out.gauge("postern_control_pods", "Pods in the cluster.", static_cast<double>(facts.pods));
  out.gauge("postern_control_policies", "NetworkPolicies in the cluster.", static_cast<double>(facts.policies));
  out.gauge("postern_control_policies_lagging", "Of these: edited, and not yet enforced by every connected sidecar that they concern.",
            static_cast<double>(facts.policies_pending));
  out.histogram("postern_control_edit_to_enforced_seconds", "From seeing a change of a policy until all connected sidecars enforce it.",
                facts.edit_to_enforced);
  add_watches(out, facts.watches);
  if (facts.webhooks) add_webhooks(out, *facts.webhooks);
  out.counter("postern_control_kube_requests_total", "Requests to the API server.", facts.kube_requests);
  out.counter("postern_control_kube_failures_total", "Of these: without an answer.", facts.kube_failures);
  out.counter("postern_control_events_written_total", "Kubernetes Events written.", facts.events_written);
  out.counter("postern_control_events_dropped_total", "Kubernetes Events left out: too many.", facts.events_dropped);
  out.counter("postern_control_events_failed_total", "Kubernetes Events that the API server did not take.", facts.events_failed);
  out.gauge("postern_control_ticket_keys_shared", "1: TLS tickets are those of all replicas, by the Secret of ticketKeys.secret.",
            facts.ticket_keys_shared ? 1 : 0);
  out.gauge("postern_svid_expiry_timestamp_seconds", "When the SVID ends, in unix time; 0: there is none.", facts.svid_expiry_seconds);
  out.counter("postern_control_svids_issued_total", "SVIDs signed for pods.", facts.signing.issued);
  MetricFamily& refused =
      out.begin("postern_control_svids_refused_total", "Requests for an SVID that were refused, by reason.", MetricType::Counter);
  for (const auto& [reason, count] : facts.signing.refused) Families::add(refused, label("reason", reason), static_cast<double>(count));
  out.gauge("postern_control_authority_expiry_timestamp_seconds", "When the signing certificate ends, in unix time; 0: no built-in CA.",
            facts.authority_expiry_seconds);
  out.gauge("postern_control_trust_bundle_sequence", "Of the trust bundle in force; 0: no built-in CA.",
            static_cast<double>(facts.bundle_sequence));
  out.counter("postern_control_rotation_steps_total", "Steps of the authority's rotation that this replica took.", facts.rotation_steps);
  add_federation(out, facts.federation);
  out.counter("postern_identity_rejected_total", "Identity files refused.", facts.identity_rejected);
  return out.text();
}

}  // namespace postern
