#include "base/spiffe_id.hpp"
