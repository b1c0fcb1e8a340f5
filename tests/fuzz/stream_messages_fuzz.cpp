// Messages of both directions, and the resources and edits in them: what is accepted comes back as it was, and is put together or refused.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "authz/stream_messages.hpp"

namespace {

using namespace postern;

void require(bool ok) {
  if (!ok) std::abort();
}

// Every part that was read is written and read again, and is then the same.
void check(const SnapshotParts& parts) {
  SnapshotParts back;
  back.self = parts.self;
  const auto read = [&](const std::string& name, std::string body) {
    require(static_cast<bool>(decode_into(back, Resource{name, "h", std::move(body)})));
  };
  if (parts.settings) read("settings", encode(*parts.settings));
  if (parts.allow_list) read("allow-list", encode(*parts.allow_list));
  read("probes", encode_probes(parts.probe_ports));
  read("nodes", encode_nodes(parts.nodes));
  if (parts.trust_bundle)
    read(std::string(trust_bundle_name), encode_trust_bundle(parts.trust_bundle->sequence, parts.trust_bundle->roots));
  for (const auto& [domain, bundle] : parts.federated_bundles) read(federated_bundle_resource_name(domain), encode(bundle));
  for (const auto& [id, set] : parts.peer_sets) read(peer_set_resource_name(id), encode(set));
  for (const auto& [key, pod] : parts.pods) read(resource_name(pod), encode(pod));
  for (const auto& [key, service] : parts.services) read(service_resource_name(key), encode(service));
  require(back == parts);
}

void apply(const Update& update) {
  // A whole state of the pod shop/web, so that what the update brings is also put together.
  SnapshotParts parts;
  parts.self = {"shop", "web"};
  parts.settings.emplace();
  parts.settings->trust_domain = TrustDomain::parse("example.org").value();
  parts.allow_list.emplace();
  Workload& self = parts.pods[parts.self].workload;
  self.ns = "shop";
  self.name = "web";
  self.service_account = "default";
  for (const ResourcePtr& resource : update.resources) {
    const SnapshotParts before = parts;
    const auto read = decode_into(parts, *resource);
    require(read || (!read.error().message.empty() && parts == before));
  }
  check(parts);
  for (const ResourceDelta& delta : update.deltas) {
    auto base = body_of(parts, delta.name);
    // Also against a body that the edits may fit: what the sidecar holds is not the sender's to choose.
    for (std::string text : {base.value_or(std::string()), std::string(4096, ',')}) {
      const std::size_t before = text.size();
      const auto body = edited_body(std::move(text), delta);
      std::size_t inserted = 0;
      for (const TextEdit& edit : delta.edits) inserted += edit.inserted.size();
      require(body ? body->size() <= before + inserted : body.error().where == delta.name);
      if (!body) continue;
      const SnapshotParts kept = parts;
      const auto read = decode_into(parts, Resource{delta.name, delta.hash, *body});
      require(read || parts == kept);
    }
  }
  check(parts);
  const auto snapshot = assemble(parts, 1, {});
  require(snapshot || !snapshot.error().message.empty());
  if (snapshot) {
    const IpAddress address = IpAddress::parse("10.0.0.1").value();
    for (const auto direction : {PolicyDirection::ingress, PolicyDirection::egress}) {
      const Verdict verdict = decide(snapshot->get(), direction, Peer{.workload = nullptr, .address = address}, Port{80});
      require(verdict.enforced.basis != Basis::no_policy);
      const SpiffeId outsider = SpiffeId::parse("spiffe://partner.example/billing").value();
      const Peer peer{.workload = nullptr, .address = address, .matches_peer_sets = false, .outsider = &outsider};
      const Verdict of_outsider = decide(snapshot->get(), direction, peer, Port{80});
      require(!of_outsider.allowed() || direction == PolicyDirection::ingress);
    }
    const Destination destination = (*snapshot)->resolve({address, Port{80}}, 1);
    require(destination.kind != Destination::Kind::workload || destination.workload != nullptr);
  }
  for (const std::string& name : update.removed) remove_from(parts, name);
}

// Any two texts: the edits between them make the one of the other.
void check_edits(std::string_view from, std::string_view to) {
  const auto edits = edits_between(from, to, 64);
  if (!edits) return;
  const auto made = edited(std::string(from), *edits, from.size() + to.size());
  require(made && *made == to);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check_edits(text.substr(0, size / 2), text.substr(size / 2));
  if (const auto said = decode_sidecar_message(text)) {
    const auto again = decode_sidecar_message(encode(*said));
    require(again && (*again == *said || std::holds_alternative<Nack>(*said)));  // a reason is cut to what people read
  } else {
    require(!said.error().message.empty());
  }
  if (const auto sent = decode_control_message(text)) {
    const auto again = decode_control_message(encode(*sent));
    require(again && again->index() == sent->index());
    if (const auto* update = std::get_if<Update>(&*sent)) apply(*update);
  } else {
    require(!sent.error().message.empty());
  }
  return 0;
}
