// AllowList: the compiled rules of one workload. Sorted, immutable; each rule keeps the policy and field it came from.
#pragma once

namespace postern {

class AllowList {};

}  // namespace postern
