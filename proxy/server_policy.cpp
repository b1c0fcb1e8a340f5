// Where policy comes from and goes to: a directory or the control plane's stream, and every worker.
#include "proxy/server_unit.hpp"

#include <unistd.h>

namespace postern {

void Server::read_policy() {
  auto read = policy_source_->read();
  if (!read) return;
  if (!*read) {
    policy_rejected_.fetch_add(1);
    const std::string text = read->error().text();
    const std::lock_guard lock(mutex_);
    if (policy_error_ == text) return;  // said already
    policy_error_ = text;
    log_.error("policy_rejected", {{"error", text}, {"kept", snapshot_ ? "the last good policy" : "none: everything is refused"}});
    return;
  }
  for (const std::string& warning : policy_source_->warnings()) log_.warning("policy_warning", {{"what", warning}});
  {
    const std::lock_guard lock(mutex_);
    policy_error_.clear();
    policy_warnings_ = policy_source_->warnings();
  }
  enforce(**read, nullptr);
}

void Server::enforce(std::shared_ptr<const PolicySnapshot> next, std::function<void()> enforced) {
  {
    const std::lock_guard lock(mutex_);
    snapshot_ = next;
  }
  const auto began = std::chrono::steady_clock::now();
  const auto left = std::make_shared<std::atomic<std::size_t>>(units_.size());
  const auto done = std::make_shared<const std::function<void()>>(std::move(enforced));
  for (const std::unique_ptr<Unit>& unit : units_) {
    unit->worker.post([this, worker = &unit->worker, next, left, began, done] {
      worker->adopt_policy(next, [this, next, left, began, done] {
        if (left->fetch_sub(1) != 1) return;
        // Every worker has decided its live connections again: now, and not before, the policy is in force.
        enforced_generation_.store(next->generation());
        const auto took = std::chrono::duration_cast<std::chrono::microseconds>(std::chrono::steady_clock::now() - began);
        log_.info("policy_enforced", {{"generation", std::to_string(next->generation())}, {"took_us", std::to_string(took.count())}});
        if (*done) (*done)();
      });
    });
  }
}

void Server::adopt(std::function<void()> work, std::function<void()> adopted) {
  {
    const std::lock_guard lock(mutex_);
    to_adopt_.emplace_back(std::move(work), std::move(adopted));
  }
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wakeup_, &one, sizeof one);
}

void Server::adopt_roots(NumberedBundle roots, std::function<void()> adopted) {
  const auto work = [this, roots = std::move(roots)] {
    if (!identity_source_) return;
    const auto taken = identity_source_->adopt_roots(roots);
    if (!taken) log_.error("trust_bundle_rejected", {{"error", taken.error().text()}});
    read_identity();
  };
  adopt(work, std::move(adopted));
}

// On the main thread. What comes of it is with the workers before `adopted` is.
void Server::take_adoptions() {
  std::vector<std::pair<std::function<void()>, std::function<void()>>> waiting;
  {
    const std::lock_guard lock(mutex_);
    waiting.swap(to_adopt_);
  }
  for (auto& [work, adopted] : waiting) {
    work();
    const auto left = std::make_shared<std::atomic<std::size_t>>(units_.size());
    const auto done = std::make_shared<const std::function<void()>>(std::move(adopted));
    for (const std::unique_ptr<Unit>& unit : units_) {
      unit->worker.post([left, done] {
        if (left->fetch_sub(1) == 1) (*done)();
      });
    }
  }
}

void Server::policy_refused(const std::string& error) {
  if (!error.empty()) policy_rejected_.fetch_add(1);
  const std::lock_guard lock(mutex_);
  policy_error_ = error;
}

void Server::peers_in_use(std::function<void(AddressSet)> answer) {
  struct Gathered {
    std::mutex mutex;
    AddressSet addresses;
    std::size_t left = 0;
  };
  const auto gathered = std::make_shared<Gathered>();
  gathered->left = units_.size();
  for (const std::unique_ptr<Unit>& unit : units_) {
    unit->worker.post([worker = &unit->worker, gathered, answer] {
      const std::lock_guard lock(gathered->mutex);
      worker->live.for_each([&](const LiveConnection& connection) { gathered->addresses.insert(connection.facts.peer_address); });
      if (--gathered->left == 0) answer(std::move(gathered->addresses));
    });
  }
}

}  // namespace postern
