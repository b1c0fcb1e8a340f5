// Findings about postern-control itself: its Deployment and replicas, the built-in CA, the webhooks.
#include <algorithm>

#include "base/base64.hpp"
#include "certs/svid.hpp"
#include "cli/cluster_findings.hpp"
#include "cli/node_path.hpp"

namespace postern::cli {
namespace {

using Level = Finding::Level;
using std::chrono::hours;

constexpr std::size_t most_authorities = 64;
constexpr hours soon{24 * 30};
// The built-in CA's signing certificate is renewed by itself, well before this.
constexpr hours authority_soon{24 * 7};

bool is_missing(const Result<Node>& object) { return !object && object.error().message.find("404") != std::string::npos; }

void look_at_authority(const ClusterFacts& facts, std::vector<Finding>& out) {
  for (const ReplicaFacts& replica : facts.replicas) {
    const std::string expires = text_at(replica.authority, {"expires"});
    if (expires.empty()) continue;
    const std::string what = "the built-in CA's signing certificate " + text_at(replica.authority, {"signingSerial"});
    const std::string remedy = "posternctl ca rotate; is an authority given from outside? then replace it in its Secret";
    if (expires <= utc_text(facts.now)) {
      out.push_back({Level::error, "certificates", what + " has expired at " + expires + ": no SVID can be signed", remedy});
    } else if (expires <= utc_text(facts.now + authority_soon)) {
      out.push_back({Level::warning, "certificates", what + " ends at " + expires, remedy});
    } else {
      out.push_back({Level::ok, "certificates", what + " is valid until " + expires});
    }
    return;  // all replicas share it
  }
}

// One webhook configuration: entries that API servers can call, and trust.
void look_at_bundles(const ClusterFacts& facts, const Result<Node>& configuration, std::string_view kind, std::vector<Finding>& out) {
  const std::string what = "the " + std::string(kind) + " postern";
  if (is_missing(configuration)) {
    out.push_back({Level::error, "webhooks",
                   what + " is not there: " + (kind.starts_with("Mut") ? "no pod is injected" : "no injected pod is checked"),
                   "helm upgrade --install postern charts/postern --namespace " + facts.mesh_namespace});
    return;
  }
  if (!configuration) {
    out.push_back({Level::warning, "webhooks", what + " could not be looked at: " + configuration.error().text(), "see permissions"});
    return;
  }
  for (const Node& webhook : items_at(*configuration, {"webhooks"})) {
    const std::string entry = what + ", entry " + text_at(webhook, {"name"});
    const auto pem = from_base64(text_at(webhook, {"clientConfig", "caBundle"}));
    const std::string remedy =
        "does postern-control run, and may it patch this object (ClusterRole postern-control)? With cert-manager: is its CA injector "
        "there?";
    if (!pem || pem->empty()) {
      out.push_back(
          {Level::error, "certificates", entry + ": no caBundle, so API servers trust no webhook there and refuse the pods", remedy});
      continue;
    }
    const auto authorities = parse_certificates_pem(*pem, most_authorities);
    SystemTime latest;
    if (authorities) {
      for (const X509Ptr& one : *authorities) {
        if (const auto until = not_after_of(one.get())) latest = std::max(latest, *until);
      }
    }
    if (!authorities) {
      out.push_back({Level::error, "certificates", entry + ": its caBundle cannot be read: " + authorities.error().text(), remedy});
    } else if (latest <= facts.now) {
      out.push_back(
          {Level::error, "certificates", entry + ": every authority of its caBundle has expired, the last at " + utc_text(latest), remedy});
    } else if (latest <= facts.now + soon) {
      out.push_back({Level::warning, "certificates", entry + ": its authority ends at " + utc_text(latest), remedy});
    }
  }
}

void look_at_dry_run(const ClusterFacts& facts, std::vector<Finding>& out) {
  const std::string where = "a pod made as a dry run in " + facts.dry_run_namespace;
  if (!facts.dry_run) {
    out.push_back({Level::error, "webhooks", where + ": " + facts.dry_run.error().text(), "does the API server reach its webhooks?"});
    return;
  }
  const ApiReply& reply = *facts.dry_run;
  const std::string said = text_at(reply.body, {"message"});
  if (reply.ok()) {
    const bool injected = text_at(reply.body, {"metadata", "annotations", "postern.dev/injected"}) == "true";
    if (injected) {
      out.push_back({Level::ok, "webhooks", where + " came back with its sidecar"});
    } else {
      out.push_back(
          {Level::error, "webhooks", where + " came back without a sidecar",
           "is the namespace excluded (webhook.excludedNamespaces), or was the webhook configuration changed? helm upgrade puts it back"});
    }
  } else if (said.find("failed calling webhook") != std::string::npos) {
    out.push_back(
        {Level::error, "webhooks", where + " was refused: " + said,
         "do its replicas run and are they ready (kubectl -n " + facts.mesh_namespace +
             " get pods), and may API servers reach their port 15017 (firewalls of managed clusters: allow it from the control plane)?"});
  } else if (reply.status == 403 && said.find("cannot create") != std::string::npos) {
    out.push_back({Level::warning, "webhooks",
                   "whether API servers reach the webhook was not tried: you may not create pods in " + facts.dry_run_namespace,
                   "ask as somebody who may (nothing is kept: it is a dry run)"});
  } else {
    // Something else said no after the webhook had answered: Pod Security, a quota.
    out.push_back({Level::warning, "webhooks", where + " was refused: " + said, "injected pods of this namespace would be, too"});
  }
}

}  // namespace

void add_control_plane(const ClusterFacts& facts, std::vector<Finding>& out) {
  if (is_missing(facts.deployment)) {
    out.push_back({Level::error, "control plane", "there is no Deployment postern-control in " + facts.mesh_namespace,
                   "install the chart, or name its namespace with --namespace"});
  } else if (!facts.deployment) {
    out.push_back(
        {Level::warning, "control plane", "its Deployment could not be looked at: " + facts.deployment.error().text(), "see permissions"});
  } else {
    const auto wanted = integer_at(*facts.deployment, {"spec", "replicas"});
    const auto ready = integer_at(*facts.deployment, {"status", "readyReplicas"});
    const std::string text = std::to_string(ready) + " of " + std::to_string(wanted) + " replicas of postern-control are ready";
    const std::string remedy =
        "kubectl -n " + facts.mesh_namespace + " describe deployment postern-control; its log says what it waits for";
    if (ready == 0) {
      out.push_back({Level::error, "control plane", text + ": sidecars keep what they have, and no injected pod starts", remedy});
    } else if (ready < wanted) {
      out.push_back({Level::warning, "control plane", text, remedy});
    } else {
      out.push_back({Level::ok, "control plane", text});
    }
  }
  for (const ReplicaFacts& replica : facts.replicas) {
    if (replica.problem.empty()) continue;
    out.push_back({Level::warning, "control plane", "the replica " + replica.pod + " could not be asked: " + replica.problem,
                   "may API servers reach its port 15011 (networkPolicy.metricsFrom), and may you get pods/proxy?"});
  }
  look_at_authority(facts, out);
}

void add_webhooks(const ClusterFacts& facts, std::vector<Finding>& out) {
  const std::size_t before = out.size();
  look_at_bundles(facts, facts.mutating, "MutatingWebhookConfiguration", out);
  look_at_bundles(facts, facts.validating, "ValidatingWebhookConfiguration", out);
  if (out.size() == before) out.push_back({Level::ok, "certificates", "both webhook configurations name a valid authority"});
  look_at_dry_run(facts, out);
}

}  // namespace postern::cli
