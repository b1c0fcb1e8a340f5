#include "proxy/held_policy.hpp"

#include <algorithm>
#include <set>

#include "certs/digest.hpp"

namespace postern {

namespace {

MeshSettings effective(MeshSettings received, const MeshSettings& local) {
  std::vector<IpAddress>& nodes = received.node_addresses;
  nodes.insert(nodes.end(), local.node_addresses.begin(), local.node_addresses.end());
  std::sort(nodes.begin(), nodes.end());
  nodes.erase(std::unique(nodes.begin(), nodes.end()), nodes.end());
  received.denied.add(local.denied);
  if (received.cluster_cidrs.empty()) received.cluster_cidrs = local.cluster_cidrs;
  return received;
}

std::string text_of(const Mark& mark) {
  std::string text = "epoch " + mark.epoch;
  for (const auto& [kind, version] : mark.versions) text += ", " + kind + " " + std::to_string(version);
  return text;
}

}  // namespace

bool HeldPolicy::is_older(const Mark& mark) const { return mark.epoch == mark_.epoch && !mark.reaches(mark_); }

Result<std::shared_ptr<const PolicySnapshot>> HeldPolicy::apply(const Update& update, std::uint64_t generation,
                                                                std::chrono::system_clock::time_point now) {
  if (update.mark.epoch.empty()) return Error{"the update names no epoch", "mark"};
  if (is_older(update.mark)) {
    return Error{"older than what is enforced (" + text_of(mark_) + "): this replica's view lags behind; refused", text_of(update.mark)};
  }
  if (update.resources.empty() && update.deltas.empty() && update.removed.empty() && !hashes_.empty()) {
    mark_ = update.mark;
    return std::shared_ptr<const PolicySnapshot>();
  }
  SnapshotParts next = parts_;
  std::map<std::string, std::string> hashes = hashes_;
  for (const std::string& name : update.removed) {
    remove_from(next, name);
    hashes.erase(name);
  }
  for (const ResourcePtr& resource : update.resources) {
    if (auto read = decode_into(next, *resource); !read) return read.error();
    hashes[resource->name] = resource->hash;
  }
  for (const ResourceDelta& delta : update.deltas) {
    auto body = edited_held(delta);
    if (!body) return body.error();
    if (auto read = decode_into(next, Resource{delta.name, delta.hash, *std::move(body)}); !read) return read.error();
    hashes[delta.name] = delta.hash;
  }
  if (!next.settings) return Error{"missing; without it nothing can be decided", "settings"};
  if (!(next.settings->trust_domain == local_.trust_domain)) {
    return Error{"the control plane's trust domain is " + next.settings->trust_domain.text() + ", this sidecar's is " +
                     local_.trust_domain.text() + "; mesh.trustDomain must be the same everywhere",
                 "settings"};
  }
  MeshSettings received = *next.settings;
  next.settings = effective(received, local_);
  auto snapshot = assemble(next, generation, now);
  if (!snapshot) return snapshot.error();
  next.settings = std::move(received);
  parts_ = std::move(next);
  hashes_ = std::move(hashes);
  mark_ = update.mark;
  return snapshot;
}

Result<std::string> HeldPolicy::edited_held(const ResourceDelta& delta) const {
  if (delta.name == trust_bundle_name || delta.name.starts_with(federated_bundle_prefix)) return Error{"roots are sent whole", delta.name};
  const auto held = hashes_.find(delta.name);
  auto base = body_of(parts_, delta.name);
  if (held == hashes_.end() || !base) return Error{"edits to what this sidecar does not hold", delta.name};
  if (held->second != delta.base) return Error{"edits to " + delta.base + "; this sidecar holds " + held->second, delta.name};
  auto body = edited_body(*std::move(base), delta);
  if (!body) return body.error();
  if (const std::string hash = content_hash(*body); hash != delta.hash) {
    return Error{"the edits come to " + hash + ", and should come to " + delta.hash, delta.name};
  }
  return body;
}

Update HeldPolicy::whole() const {
  Update update;
  update.mark = mark_;
  for (const auto& [name, hash] : hashes_) {
    if (auto body = body_of(parts_, name))
      update.resources.push_back(std::make_shared<const Resource>(Resource{name, hash, *std::move(body)}));
  }
  return update;
}

std::vector<std::string> HeldPolicy::looked_up_and_unused(const AddressSet& in_use) const {
  std::set<WorkloadKey> needed{parts_.self};
  for (const auto& [id, set] : parts_.peer_sets) needed.insert(set.members.begin(), set.members.end());
  const auto used = [&](const IpAddress& address) { return in_use.contains(address); };

  std::vector<std::string> names;
  for (const auto& [key, service] : parts_.services) {
    bool keep = false;
    for (const ServiceRecordPort& port : service.ports) {
      for (const auto& family : port.endpoints) {
        for (const ServiceEndpoint& endpoint : family)
          keep = keep || used(endpoint.address.address) || (endpoint.pod && needed.contains(*endpoint.pod));
      }
    }
    if (!keep) names.push_back(service_resource_name(key));
  }
  for (const auto& [key, pod] : parts_.pods) {
    if (!needed.contains(key) && std::ranges::none_of(pod.workload.addresses, used)) names.push_back(pod_resource_name(key));
  }
  return names;
}

}  // namespace postern
