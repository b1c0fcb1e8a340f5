// BackOff: how long to wait before trying again what failed. Pure arithmetic; the waiting and the chance are the caller's.
#pragma once

#include <algorithm>
#include <chrono>
#include <random>

namespace postern {

class BackOff {
 public:
  // Doubles from `first` to `longest`.
  BackOff(std::chrono::milliseconds first, std::chrono::milliseconds longest) : first_(first), longest_(longest), next_(first) {}

  // Between half of it and all of it, so that those who failed together do not come back together; the next one is twice as long.
  template <class Random>
  std::chrono::milliseconds next(Random& random) {
    std::uniform_int_distribution<std::chrono::milliseconds::rep> wait(next_.count() / 2, next_.count());
    next_ = std::min(longest_, next_ * 2);
    return std::chrono::milliseconds(wait(random));
  }
  // It worked: the next failure begins anew.
  void reset() { next_ = first_; }

 private:
  std::chrono::milliseconds first_;
  std::chrono::milliseconds longest_;
  std::chrono::milliseconds next_;
};

}  // namespace postern
