#include "base/ip.hpp"
