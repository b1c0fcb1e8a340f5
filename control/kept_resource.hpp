// KeptResource: a resource as it is now, and the latest edits that made it so: who holds a recent version is sent these, not the whole.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "authz/stream_messages.hpp"

namespace postern {

class KeptResource {
 public:
  // Null: it is to be made anew.
  const ResourcePtr& current() const { return current_; }
  // What it is made of has changed.
  void outdated();
  const ResourcePtr& keep(ResourcePtr made);

  // The edits to the version of that hash, which skip what came between; nothing where it is too long ago, or was never, or where the whole
  // is not much longer.
  std::optional<ResourceDelta> since(std::string_view hash) const;

 private:
  // From the version of that hash to the one after it.
  struct Step {
    std::string from;
    std::vector<TextEdit> edits;
    std::size_t bytes = 0;  // of its part of a message, about
  };
  void add_step(const Resource& before);

  ResourcePtr current_;
  ResourcePtr before_;  // until the current one is made
  std::deque<Step> steps_;
  std::size_t bytes_ = 0;  // of steps_
  std::size_t edits_ = 0;
};

}  // namespace postern
