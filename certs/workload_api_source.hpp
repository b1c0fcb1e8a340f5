// WorkloadApiSource: an SvidSource over a SPIFFE Workload API, such as SPIRE's agent. What it has stays in force until something newer
// comes or it expires, also while the API says that there is nothing: an agent that has just started says so, too.
#pragma once

#include <memory>
#include <string>

#include "certs/workload_api/client.hpp"

namespace postern {

class WorkloadApiSource final : public SvidSource {
 public:
  // `endpoint` as SPIFFE Workload Endpoint section 4 writes it: unix:///run/spire/agent.sock. Loads the module, which is in the folder of
  // this program; fails where it is missing or of another version.
  static Result<std::unique_ptr<WorkloadApiSource>> make(const std::string& endpoint, SvidChoice choice);
  ~WorkloadApiSource() override;

  int fd() const override { return client_->fd(); }
  std::optional<Result<X509ContextPtr>> poll() override;
  std::vector<std::string> take_warnings() override { return std::exchange(warnings_, {}); }
  // The next renewal is the other side's business.
  std::string describe() const override { return "Workload API: " + endpoint_; }

 private:
  std::optional<Result<X509ContextPtr>> adopt(const WorkloadUpdate& update);
  WorkloadApiSource(std::unique_ptr<WorkloadApiClient> client, std::string endpoint, SvidChoice choice)
      : client_(std::move(client)), endpoint_(std::move(endpoint)), choice_(std::move(choice)) {}

  std::unique_ptr<WorkloadApiClient> client_;
  std::string endpoint_;
  SvidChoice choice_;
  X509ContextPtr current_;    // as last handed out
  std::string last_refusal_;  // of an update, as last reported; empty after a good one
  std::string last_failure_;  // of the stream, likewise; empty while there is one
  std::vector<std::string> warnings_;
};

// The path of the socket that an endpoint names. Errors say what is expected.
Result<std::string> workload_api_socket(std::string_view endpoint);

}  // namespace postern
