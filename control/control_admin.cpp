// What the admin threads ask of the control plane.
#include <chrono>

#include "base/json_writer.hpp"
#include "control/control.hpp"

namespace postern {
namespace {

double unix_seconds(std::chrono::system_clock::time_point at) { return std::chrono::duration<double>(at.time_since_epoch()).count(); }

}  // namespace

std::string Control::why_not_ready() const {
  if (!identity_ && authority_ && !authority_->error().empty()) return "no SVID: " + authority_->error();
  if (!identity_) return "no SVID: " + (identity_error_.empty() ? std::string("not read yet") : identity_error_);
  if (identity_->svid.not_after <= std::chrono::system_clock::now()) return "the SVID has expired";
  if (!store_.synced()) {
    std::string missing;
    for (const auto& reflector : reflectors_) {
      const Reflector::Stats stats = reflector->stats();
      if (!stats.synced && !stats.last_error.empty()) missing = ": " + stats.last_error;
    }
    return "the cluster has not been read yet" + missing;
  }
  if (!published_) return "nothing is published yet";
  if (webhooks_) return webhooks_->why_not_ready();
  return {};
}

std::string Control::not_ready() {
  return ask([this] { return why_not_ready(); }).value_or("the control thread did not answer within a second");
}

ControlFacts Control::facts() const {
  ControlFacts out;
  out.server = server_->stats();
  out.publisher = publisher_.stats();
  const auto now = Clock::now();
  for (std::size_t i = 0; i < reflectors_.size(); ++i) {
    const Reflector::Stats stats = reflectors_[i]->stats();
    WatchFacts watch;
    watch.kind = watched_kinds[i];
    watch.synced = stats.synced;
    watch.watching = stats.watching;
    watch.relists = stats.relists;
    watch.events = stats.events;
    watch.errors = stats.errors;
    watch.unreadable = stats.unreadable;
    watch.asked = stats.asked;
    if (stats.last_contact) watch.silence_seconds = std::chrono::duration<double>(now - *stats.last_contact).count();
    out.watches.push_back(watch);
  }
  out.flush = flush_duration_;
  out.edit_to_enforced = edit_to_enforced_;
  out.policies = store_.view().policies.size();
  out.policies_pending = in_force_.pending();
  out.pods = store_.view().pods.size();
  out.kube_requests = client_.stats().requests;
  out.kube_failures = client_.stats().failures;
  const EventRecorder::Stats events = recorder_.stats();
  out.events_written = events.written;
  out.events_dropped = events.dropped;
  out.events_failed = events.failed;
  if (webhooks_) out.webhooks = WebhookFacts{webhooks_->stats(), webhooks_->uninjected()};
  if (identity_) out.svid_expiry_seconds = unix_seconds(identity_->svid.not_after);
  out.identity_rejected = identity_rejected_;
  out.ticket_keys_shared = ticket_keys_ && ticket_keys_->shared();
  if (signing_) {
    out.signing = signing_->stats();
    out.bundle_sequence = bundle_in_use_.sequence;
    out.rotation_steps = authority_->steps();
    if (const auto authority = authority_->authority()) out.authority_expiry_seconds = unix_seconds(authority->not_after());
  }
  if (federation_) out.federation = federation_->facts();
  out.ready = why_not_ready().empty();
  return out;
}

std::optional<std::string> Control::metrics() {
  return ask([this] { return render_metrics(facts()); });
}

// What encode() says of the policies, and before it what this replica is.
std::optional<std::string> Control::policies_json(std::string_view ns, std::string_view name) {
  return ask([this, ns = std::string(ns), name = std::string(name)] {
    flush();  // an edit that is seen but not compiled must not count as enforced
    const auto stream_of = [this](const WorkloadKey& key) { return stream_state(key); };
    const PolicyServer::Stats server = server_->stats();
    const std::size_t lagging = server.outstanding + server.refused;
    std::string body = "{\"synced\":";
    body += published_ ? "true" : "false";
    body += ",\"streams\":" + std::to_string(server.open) + ",\"laggingStreams\":" + std::to_string(lagging) + ",";
    return body + encode(policy_status(store_, publisher_, stream_of, ns, name)).substr(1);
  });
}

std::optional<std::string> Control::streams_json() {
  return ask([this] { return server_->streams_json(); });
}

std::optional<std::string> Control::unconnected_json() {
  return ask([this] {
    flush();
    const auto stream_of = [this](const WorkloadKey& key) { return stream_state(key); };
    JsonWriter out;
    out.begin_object().field("synced", published_).key("pods").begin_array();
    for (const WorkloadKey& pod : unconnected_pods(store_, stream_of)) out.value(pod.text());
    out.end_array().end_object();
    return out.take();
  });
}

std::string Control::config_yaml() { return control_config_table().print(config_); }

}  // namespace postern
