// When an X.509-SVID is renewed. Pure arithmetic over time.
#pragma once

#include <chrono>
#include <random>

#include "certs/svid.hpp"

namespace postern {

// Half of the life of an SVID that was made at `begins`, give or take a tenth of it: sidecars that started together do not renew together.
template <class Random>
SystemTime renewal_time(SystemTime begins, SystemTime ends, Random& random) {
  const double part = std::uniform_real_distribution<double>(0.4, 0.6)(random);
  return begins + std::chrono::duration_cast<SystemTime::duration>((ends - begins) * part);
}

}  // namespace postern
