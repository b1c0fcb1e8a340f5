#include "proxy/lookup.hpp"

#include <memory>

#include "proxy/worker.hpp"

namespace postern {

bool Lookups::ask(const IpAddress& address, std::function<void()> answered, Clock::time_point now) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto absent = absent_.find(address); absent != absent_.end()) {
      if (now < absent->second) return false;
      absent_.erase(absent);
    }
    const auto found = pending_.find(address);
    if (found != pending_.end() && now - found->second.since < timeout_) {
      found->second.waiting.push_back(std::move(answered));
      return true;
    }
    if (found == pending_.end() && pending_.size() >= pending_max) return false;
    Pending& pending = pending_[address];  // one that was never answered is asked anew
    pending.id = ++last_id_;
    pending.since = now;
    pending.sent = false;
    pending.waiting.push_back(std::move(answered));
  }
  wake_();
  return true;
}

std::vector<Lookup> Lookups::take(Clock::time_point now, bool again) {
  std::vector<Lookup> out;
  std::vector<Pending> dropped;
  const std::lock_guard lock(mutex_);
  for (auto at = pending_.begin(); at != pending_.end();) {
    Pending& pending = at->second;
    // Whoever joined later has waited less, and asks anew.
    if (now - pending.since > timeout_) {
      dropped.push_back(std::move(pending));
      at = pending_.erase(at);
      continue;
    }
    if (again || !pending.sent) out.push_back(Lookup{pending.id, at->first});
    pending.sent = true;
    ++at;
  }
  for (const Pending& pending : dropped) {
    for (const auto& answered : pending.waiting) answered();
  }
  return out;
}

void Lookups::answer(const LookupAnswer& answer, Clock::time_point now) {
  std::vector<std::function<void()>> waiting;
  {
    const std::lock_guard lock(mutex_);
    auto at = pending_.begin();
    while (at != pending_.end() && at->second.id != answer.id) ++at;
    if (at == pending_.end()) return;  // too late
    waiting = std::move(at->second.waiting);
    if (!answer.known && answer.error.empty()) {
      if (absent_.size() >= absent_max) std::erase_if(absent_, [now](const auto& entry) { return entry.second <= now; });
      if (absent_.size() < absent_max) absent_[at->first] = now + absent_for;
    }
    pending_.erase(at);
  }
  for (const auto& answered : waiting) answered();
}

std::uint64_t Lookups::asked() const {
  const std::lock_guard lock(mutex_);
  return last_id_;
}

Task<void> look_up(Worker& worker, IpAddress address) {
  if (worker.lookups == nullptr) co_return;
  struct Wait {
    Watch watch;
    bool over = false;
  };
  const auto wait = std::make_shared<Wait>();
  const std::function<void()> end = [&worker, wait] {
    wait->over = true;
    if (wait->watch.waiter != nullptr) worker.loop.make_ready(*wait->watch.waiter);
  };
  const std::function<void()> answered = [&worker, end] { worker.post(end); };
  if (!worker.lookups->ask(address, answered, Lookups::Clock::now())) co_return;
  Timer deadline(worker.loop, end);
  deadline.arm(worker.lookups->timeout());
  while (!wait->over) co_await until_ready(wait->watch);
}

}  // namespace postern
