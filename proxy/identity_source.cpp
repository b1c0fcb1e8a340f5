#include "proxy/identity_source.hpp"

#include "certs/file_source.hpp"
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
  return std::unique_ptr<SvidSource>();
}

}  // namespace postern
