#include "base/document.hpp"
