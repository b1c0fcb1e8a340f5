// SvidSource: where the current SVID and bundles come from.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "certs/signing_messages.hpp"
#include "certs/tls_context.hpp"

namespace postern {

using X509ContextPtr = std::shared_ptr<const X509Context>;

// Driven by the caller: wait until fd() is readable, then poll(). One thread at a time.
class SvidSource {
 public:
  virtual ~SvidSource() = default;

  // To wait on; -1 where there is nothing to wait for.
  virtual int fd() const = 0;
  // Reads what is new. Nothing: no change. An error: the last good context stays in force. The first call yields the first context.
  virtual std::optional<Result<X509ContextPtr>> poll() = 0;
  // The mesh's roots, as the control plane's authenticated stream brought them. A source that has its bundles from elsewhere ignores them;
  // one that takes them yields another context at the next poll(). An error: they cannot be read.
  virtual Result<void> adopt_roots(const NumberedBundle& /*roots*/) { return {}; }
  // What is wrong but not fatal, for the log; emptied by the call.
  virtual std::vector<std::string> take_warnings() = 0;
  // For people: what it is and where, such as "files: /run/svid/svid.pem".
  virtual std::string describe() const { return "unnamed"; }
  // When it will ask for the next SVID by itself. Nothing: somebody else renews, and it only hears of it.
  virtual std::optional<SystemTime> next_renewal() const { return std::nullopt; }
};

}  // namespace postern
