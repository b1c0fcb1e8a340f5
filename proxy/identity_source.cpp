#include "proxy/identity_source.hpp"

#include "certs/file_source.hpp"

namespace postern {

Result<std::unique_ptr<SvidSource>> make_identity_source(const Config& config, Log& /*log*/) {
  if (!config.identity.certificate.empty()) {
    auto files = FileSource::make({config.identity.certificate, config.identity.key, config.identity.bundle});
    if (!files) return files.error();
    return std::unique_ptr<SvidSource>(std::move(*files));
  }
  return std::unique_ptr<SvidSource>();
}

}  // namespace postern
