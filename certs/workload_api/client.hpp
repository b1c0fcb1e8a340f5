// WorkloadApiClient: the stream of a SPIFFE Workload API, in a module of its own (postern-workload-api.so) that is loaded only where the
// configuration asks for it: gRPC and protobuf are in no other sidecar's memory. This header is all that both sides of dlopen share.
#pragma once

#include <optional>
#include <string>

#include "certs/workload_update.hpp"

namespace postern {

// What has happened since the last look, in this order.
struct WorkloadEvents {
  std::optional<WorkloadUpdate> update;  // the newest message; earlier ones are superseded (SPIFFE Workload API section 4.3)
  std::string failure;                   // why there is no stream now: "PERMISSION_DENIED: no identity issued"; empty: nothing to say
  bool gave_up = false;                  // an error that no retry mends (SPIFFE Workload Endpoint section 6)
};

class WorkloadApiClient {
 public:
  virtual ~WorkloadApiClient() = default;
  virtual int fd() const = 0;  // readable when take() has something
  virtual WorkloadEvents take() = 0;
};

// What the module exports, by these names: the version of Postern that it is built with, which must be the program's; and the maker.
// `target` is gRPC's: "unix:/run/spire/agent.sock". Null: out of descriptors or threads.
inline constexpr const char* workload_api_module = "postern-workload-api.so";
inline constexpr const char* workload_api_version = "postern_workload_api_version";
inline constexpr const char* workload_api_entry = "postern_workload_api_client";
using MakeWorkloadApiClient = WorkloadApiClient* (*)(const char* target);

}  // namespace postern
