#include "authz/workload.hpp"
