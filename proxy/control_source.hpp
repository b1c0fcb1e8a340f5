// ControlSource: an SvidSource over the control plane's signing port (docs/identity.md). The key is made here and never leaves; the pod's
// projected token says who asks. A thread of its own.
//
// It speaks to nobody but spiffe://<trust domain>/postern/control, proven by the roots of its own configuration, and later by those that
// this same control plane sent: a ConfigMap, or whoever answers at the address, is trusted in nothing.
#pragma once

#include <memory>

#include "base/log.hpp"
#include "certs/svid_source.hpp"
#include "proxy/config.hpp"

namespace postern {

class ControlSource final : public SvidSource {
 public:
  // Begins with what the state folder holds, where that is still good, and to ask. Fails where the roots cannot be read.
  // REQUIRES: `config` and `log` outlive this.
  static Result<std::unique_ptr<ControlSource>> make(const Config& config, Log& log);
  ~ControlSource() override;

  int fd() const override;
  std::optional<Result<X509ContextPtr>> poll() override;
  Result<void> adopt_roots(const NumberedBundle& roots) override;
  std::vector<std::string> take_warnings() override;
  std::string describe() const override;
  std::optional<SystemTime> next_renewal() const override;

 private:
  class Impl;
  explicit ControlSource(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace postern
