// posternctl check, of a cluster.
#pragma once

#include "cli/command.hpp"

namespace postern::cli {

// Asks the cluster and prints the findings; the exit status.
int check_cluster(const Arguments& arguments);

}  // namespace postern::cli
