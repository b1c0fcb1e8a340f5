#include "proxy/live_connections.hpp"

namespace postern {

void LiveConnections::add(LiveConnection& connection) {
  connection.checked_ = round_;
  connections_.push_back(connection);
}

void LiveConnections::recheck(std::shared_ptr<const PolicySnapshot> snapshot, std::function<void()> done) {
  snapshot_ = std::move(snapshot);
  ++round_;
  if (done) done_.push_back(std::move(done));
  loop_.make_ready(*this);
}

void LiveConnections::wake() {
  for (int i = 0; i < slice; ++i) {
    if (connections_.empty() || connections_.front().checked_ == round_) {
      std::vector<std::function<void()>> done;
      done.swap(done_);
      for (auto& call : done) call();
      return;
    }
    LiveConnection& connection = connections_.front();
    connection.unlink();
    connection.checked_ = round_;
    connections_.push_back(connection);
    if (!connection.decided()) continue;
    const Judgement judgement = judge(snapshot_.get(), connection.facts);
    if (judgement.allowed) continue;
    connection.revoke(judgement.reason == Reason::identity_denied ? Reason::identity_denied : Reason::policy_changed);
  }
  loop_.make_ready(*this);
}

void LiveConnections::revoke_all(Reason reason) {
  connections_.for_each([reason](LiveConnection& connection) { connection.revoke(reason); });
}

void LiveConnections::for_each(const std::function<void(LiveConnection&)>& visit) { connections_.for_each(visit); }

}  // namespace postern
