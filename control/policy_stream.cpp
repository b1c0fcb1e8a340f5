#include "control/policy_stream.hpp"

#include <algorithm>
#include <utility>
#include <variant>

namespace postern {
namespace {

// How long a sidecar's pod may be unknown here: its own watch may be ahead of ours.
constexpr auto pod_patience = std::chrono::seconds{30};
constexpr std::size_t waiting_answers = 1024;

bool holds_rules(std::string_view name) { return name == "allow-list" || name.starts_with("peer-set/"); }

}  // namespace

Result<StreamOwner> stream_owner(const SpiffeId& id, const TrustDomain& trust_domain) {
  if (id.trust_domain() != trust_domain.text()) return Error{"the SVID is of another trust domain than " + trust_domain.text(), id.text()};
  const auto pod = id.pod();
  if (!pod || pod->pod.empty() || pod->uid.empty()) {
    return Error{"the SVID does not name a pod; expected spiffe://" + trust_domain.text() + "/ns/NAMESPACE/sa/ACCOUNT/pod/NAME/UID",
                 id.text()};
  }
  return StreamOwner{{std::string(pod->ns), std::string(pod->pod)}, std::string(pod->uid), std::string(pod->service_account)};
}

PolicyStream::PolicyStream(StreamOwner owner, StreamContext& context, std::function<void()> wake, Clock::time_point now)
    : owner_(std::move(owner)),
      context_(context),
      wake_(std::move(wake)),
      pod_deadline_(now + pod_patience),
      lookup_tokens_(context.limits.lookup_burst),
      lookup_refilled_(now) {}

void PolicyStream::receive(std::string_view text, Clock::time_point now) {
  if (ended_) return;
  const auto message = decode_sidecar_message(text);
  if (!message) return end(End::Kind::malformed, message.error().text());
  if (!hello_ && !std::holds_alternative<Hello>(*message)) return end(End::Kind::malformed, "expected hello first");
  std::visit([&](const auto& part) { on(part, now); }, *message);
}

void PolicyStream::on(const Hello& hello, Clock::time_point now) {
  if (hello_) return end(End::Kind::malformed, "hello was said twice");
  hello_ = hello.mark;
  version_ = hello.version;
  acknowledged_ = hello.have;
  // An event that the store has seen but the publisher not yet would be hidden behind has_seen().
  context_.flush();
  proceed(now);
}

void PolicyStream::proceed(Clock::time_point now) {
  if (!hello_ || subscription_ || ended_) return;
  const ClusterStore& store = context_.store;
  if (!store.synced() || context_.mark().versions.empty()) return wait_for("this replica has not read the cluster yet");
  if (!hello_->epoch.empty() && !store.has_seen(*hello_)) {
    if (context_.behind) context_.behind(*hello_);
    return wait_for("this replica has not seen yet what the sidecar enforces");
  }

  const auto pod = store.view().pods.find(owner_.key);
  const bool known = pod != store.view().pods.end() && pod->second.workload.uid == owner_.uid;
  if (known && pod->second.workload.service_account != owner_.service_account) {
    return end(End::Kind::refused, "the SVID names the service account " + owner_.service_account + "; the pod's is another");
  }
  if (known) {
    subscription_ = context_.publisher.subscribe(owner_.key, owner_.uid, [this](bool gone) {
      if (gone) {
        end(End::Kind::gone, "the pod is gone");
      } else {
        pending_ = true;
        wake_();
      }
    });
  }
  if (!subscription_) {
    if (now >= pod_deadline_) return end(End::Kind::try_later, "there is no pod " + owner_.key.text() + " with the UID of the SVID");
    return wait_for("there is no pod " + owner_.key.text() + " with the UID of the SVID yet");
  }
  waiting_for_.clear();
  announce_waiting_ = false;
  pending_ = true;
  whole_ = true;
  wake_();
}

void PolicyStream::wait_for(std::string reason) {
  if (reason == waiting_for_) return;
  waiting_for_ = std::move(reason);
  announce_waiting_ = true;
  wake_();
}

void PolicyStream::end(End::Kind kind, std::string reason) {
  if (ended_) return;
  ended_ = End{kind, std::move(reason)};
  wake_();
}

// Whether the Update that is under way has that nonce.
bool PolicyStream::take_answered(std::uint64_t nonce) {
  if (outstanding_ && nonce == nonce_) return true;
  end(End::Kind::malformed, "an answer to update " + std::to_string(nonce) + ", which is not under way");
  return false;
}

void PolicyStream::on(const Ack& ack, Clock::time_point now) {
  if (!take_answered(ack.nonce)) return;
  ++context_.counters.acks;
  acknowledged_.update(outstanding_->sent, outstanding_->removed);
  if (outstanding_->rules || !acknowledged_once_) enforced_since_ = std::chrono::system_clock::now();
  acknowledged_once_ = true;
  refusal_.clear();
  outstanding_.reset();
  behind_since_ = pending_ ? std::optional(now) : std::nullopt;
  wake_();
}

void PolicyStream::on(const Nack& nack, Clock::time_point) {
  if (!take_answered(nack.nonce)) return;
  ++context_.counters.nacks;
  refusal_ = nack.reason.empty() ? "refused without a reason" : nack.reason;
  whole_ = true;  // at the next change: what was refused is still missing
  // Unless that may be for what they were edits to: then the same goes out once more, whole, and from now on everything does.
  if (outstanding_->deltas) {
    deltas_ = false;
    pending_ = true;
  }
  outstanding_.reset();
  wake_();
}

bool PolicyStream::may_look_up(Clock::time_point now) {
  const double passed = std::chrono::duration<double>(now - lookup_refilled_).count();
  lookup_refilled_ = now;
  lookup_tokens_ = std::min<double>(context_.limits.lookup_burst, lookup_tokens_ + passed * context_.limits.lookups_per_second);
  if (lookup_tokens_ < 1) return false;
  lookup_tokens_ -= 1;
  return true;
}

void PolicyStream::on(const Lookup& lookup, Clock::time_point now) {
  if (answers_.size() + answers_later_.size() >= waiting_answers) return end(End::Kind::malformed, "more look-ups than answers were read");
  LookupAnswer answer;
  answer.id = lookup.id;
  if (!subscription_ || !may_look_up(now)) {
    answer.error = subscription_ ? "too many look-ups; ask again later" : "not ready; ask again later";
    ++context_.counters.lookups_limited;
    answers_.push_back(std::move(answer));
    return wake_();
  }
  context_.flush();
  if (ended_) return;
  answer.known = subscription_->look_up(lookup.address);
  ++(answer.known ? context_.counters.lookups_known : context_.counters.lookups_unknown);
  if (answer.known) {
    pending_ = true;
    answers_later_.push_back(std::move(answer));
  } else {
    answers_.push_back(std::move(answer));
  }
  wake_();
}

void PolicyStream::on(const Forget& forget, Clock::time_point) {
  if (!subscription_) return;
  for (const std::string& name : forget.names) subscription_->forget(name);
  pending_ = true;
  wake_();
}

void PolicyStream::trust_bundle_changed() {
  pending_ = true;
  wake_();
}

// The bundle is everybody's, and so in nobody's subscription, which takes what it does not know for something to be removed.
void PolicyStream::add_trust_bundle(Subscription::Difference& difference) const {
  if (context_.trust_bundle == nullptr) return;
  std::erase(difference.removed, trust_bundle_name);
  if (!acknowledged_.has(context_.trust_bundle->name, context_.trust_bundle->hash)) difference.resources.push_back(context_.trust_bundle);
}

// Likewise. What this replica has not fetched yet, another one has sent: it stays.
void PolicyStream::add_federated_bundles(Subscription::Difference& difference) const {
  std::erase_if(difference.removed, [](const std::string& name) { return name.starts_with(federated_bundle_prefix); });
  for (std::size_t i = acknowledged_.first_from(federated_bundle_prefix);
       i < acknowledged_.size() && acknowledged_.name_at(i).starts_with(federated_bundle_prefix); ++i) {
    if (!context_.federated_bundles.contains(acknowledged_.name_at(i))) difference.removed.emplace_back(acknowledged_.name_at(i));
  }
  for (const auto& [name, resource] : context_.federated_bundles) {
    if (resource != nullptr && !acknowledged_.has(name, resource->hash)) difference.resources.push_back(resource);
  }
}

std::optional<std::string> PolicyStream::next_message() {
  if (ended_) return std::nullopt;
  if (announce_waiting_) {
    announce_waiting_ = false;
    return encode(ControlMessage(NotReady{waiting_for_}));
  }
  if (subscription_ && !outstanding_ && pending_) {
    if (auto update = next_update()) return update;
  }
  if (answers_.empty()) return std::nullopt;
  const ControlMessage answer = std::move(answers_.front());
  answers_.pop_front();
  return encode(answer);
}

std::optional<std::string> PolicyStream::next_update() {
  pending_ = false;
  auto difference = whole_ ? subscription_->difference(acknowledged_) : subscription_->changes(acknowledged_);
  whole_ = false;
  add_trust_bundle(difference);
  add_federated_bundles(difference);
  answers_.insert(answers_.end(), std::make_move_iterator(answers_later_.begin()), std::make_move_iterator(answers_later_.end()));
  answers_later_.clear();
  // The first one also when it is empty: its acknowledgement says that what the sidecar had is in force, and is right.
  if (difference.empty() && nonce_ > 0) {
    if (refusal_.empty()) behind_since_.reset();
    return std::nullopt;
  }
  if (!behind_since_) behind_since_ = Clock::now();

  Update update;
  update.nonce = ++nonce_;
  update.mark = context_.mark();
  if (hello_->epoch == update.mark.epoch) update.mark.advance_to(*hello_);
  Outstanding outstanding;
  for (const ResourcePtr& resource : difference.resources) {
    outstanding.sent.emplace(resource->name, resource->hash);
    outstanding.rules = outstanding.rules || holds_rules(resource->name);
  }
  for (const std::string& name : difference.removed) outstanding.rules = outstanding.rules || holds_rules(name);
  outstanding.removed = difference.removed;
  if (deltas_) update.deltas = std::move(difference.deltas);
  outstanding.deltas = !update.deltas.empty();
  context_.counters.resources += difference.resources.size();
  context_.counters.deltas += update.deltas.size();
  for (const ResourceDelta& delta : update.deltas) {
    std::erase_if(difference.resources, [&](const ResourcePtr& resource) { return resource->name == delta.name; });
  }
  update.resources = std::move(difference.resources);
  update.removed = std::move(difference.removed);
  outstanding_ = std::move(outstanding);
  ++context_.counters.updates;
  return encode(ControlMessage(std::move(update)));
}

}  // namespace postern
