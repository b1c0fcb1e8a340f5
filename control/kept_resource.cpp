#include "control/kept_resource.hpp"

#include <algorithm>
#include <utility>

namespace postern {
namespace {

constexpr std::size_t smallest_body = 1024;  // below, the whole is as good
constexpr std::size_t items_max = 256;       // that differ, in one step
constexpr std::size_t bytes_max = 16U << 10;
constexpr std::size_t edit_bytes = 40;  // of an edit in a message, beside what it inserts

}  // namespace

void KeptResource::outdated() {
  if (current_ != nullptr) before_ = std::exchange(current_, nullptr);
}

const ResourcePtr& KeptResource::keep(ResourcePtr made) {
  current_ = std::move(made);
  if (const ResourcePtr before = std::exchange(before_, nullptr); before != nullptr && before->hash != current_->hash) add_step(*before);
  return current_;
}

void KeptResource::add_step(const Resource& before) {
  std::optional<std::vector<TextEdit>> edits;
  if (current_->body.size() >= smallest_body) edits = edits_between(before.body, current_->body, items_max);
  Step step{before.hash, edits ? *std::move(edits) : std::vector<TextEdit>(), 0};
  for (const TextEdit& edit : step.edits) step.bytes += edit_bytes + edit.inserted.size();
  // A step that says nothing leads from nowhere: what came before it leads nowhere either.
  const bool is_known = !step.edits.empty();
  bytes_ += step.bytes;
  edits_ += step.edits.size();
  steps_.push_back(std::move(step));
  const std::size_t most = is_known ? std::min(bytes_max, current_->body.size() / 2) : 0;
  while (!steps_.empty() && (bytes_ > most || edits_ > resource_edits_max || !is_known)) {
    bytes_ -= steps_.front().bytes;
    edits_ -= steps_.front().edits.size();
    steps_.pop_front();
  }
}

std::optional<ResourceDelta> KeptResource::since(std::string_view hash) const {
  if (current_ == nullptr) return std::nullopt;
  const auto latest = std::find_if(steps_.rbegin(), steps_.rend(), [&](const Step& step) { return step.from == hash; });
  if (latest == steps_.rend()) return std::nullopt;
  ResourceDelta delta{current_->name, std::string(hash), current_->hash, {}};
  for (auto step = latest.base() - 1; step != steps_.end(); ++step) {
    delta.edits.insert(delta.edits.end(), step->edits.begin(), step->edits.end());
  }
  return delta;
}

}  // namespace postern
