#include "proxy/identity_source.hpp"

#include <cstdlib>

#include "certs/file_source.hpp"
#include "certs/workload_api_source.hpp"
#include "proxy/control_source.hpp"

namespace postern {

Result<std::unique_ptr<SvidSource>> make_identity_source(const Config& config, Log& log) {
  if (!config.identity.certificate.empty()) {
    auto files = FileSource::make({config.identity.certificate, config.identity.key, config.identity.bundle});
    if (!files) return files.error();
    return std::unique_ptr<SvidSource>(std::move(*files));
  }
  if (!config.identity.control_plane.addresses.empty()) {
    auto control = ControlSource::make(config, log);
    if (!control) return control.error();
    return std::unique_ptr<SvidSource>(std::move(*control));
  }
  if (const auto& api = config.identity.workload_api; api.enabled) {
    const char* const given = std::getenv("SPIFFE_ENDPOINT_SOCKET");
    const std::string endpoint = !api.socket.empty() ? api.socket : given != nullptr ? given : "";
    if (endpoint.empty()) {
      return Error{
          "empty, and the environment variable SPIFFE_ENDPOINT_SOCKET is not set; expected one of them, such as "
          "unix:///run/spire/agent.sock",
          "identity.workloadApi.socket"};
    }
    auto source = WorkloadApiSource::make(endpoint, {api.spiffe_id, api.hint});
    if (!source) return source.error();
    return std::unique_ptr<SvidSource>(std::move(*source));
  }
  return std::unique_ptr<SvidSource>();
}

}  // namespace postern
