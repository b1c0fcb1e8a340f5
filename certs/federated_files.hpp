// FederatedFiles: the trust bundles of other trust domains from files, read again when they change.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/federated_bundle.hpp"
#include "base/result.hpp"
#include "certs/trust_bundle.hpp"
#include "certs/watched_files.hpp"

namespace postern {

// What is held of one other trust domain.
struct HeldBundle {
  std::shared_ptr<const TrustBundle> bundle;  // null: none, and nobody of the domain is who it says
  std::optional<std::uint64_t> sequence;      // spiffe_sequence
  std::optional<std::chrono::seconds> refresh_hint;
};

// Takes a bundle (PEM, or SPIFFE's JSON) for the domain in place of what is held: true where its authorities are others. Refused, with what
// is held unchanged: what cannot be read, and a smaller sequence than the held one's (SPIFFE Federation section 4.2). A JWK Set without a
// key for X.509-SVIDs withdraws all of them.
Result<bool> accept_bundle(HeldBundle& held, std::string_view text, const TrustDomain& domain);

class FederatedFiles {
 public:
  // Of `bundles` those that come from files. Fails where inotify does, or a folder does not exist.
  static Result<FederatedFiles> make(const std::vector<FederatedBundle>& bundles);

  // To wait on; -1 where there are no files.
  int fd() const { return watched_ ? watched_->fd() : -1; }
  // Reads what has changed: true where a bundle is another one now. A file that is gone withdraws its trust domain; one that cannot be
  // read leaves the last good bundle in force.
  bool poll();
  struct File {
    TrustDomain domain;
    std::string path;
    HeldBundle held;
    bool withdrawn = false;     // by the file's end, or by a bundle without keys
    std::uint64_t refused = 0;  // contents that could not be taken
    std::string fault = {};     // as last said; empty: all is well
    std::string digest = {};    // of the content in force
  };
  const std::vector<File>& files() const { return files_; }
  // What is wrong, said once, for the log; emptied by the call.
  std::vector<std::string> take_warnings() { return std::exchange(warnings_, {}); }

 private:
  bool read(File& file);

  std::vector<File> files_;
  std::optional<WatchedFiles> watched_;
  std::vector<std::string> warnings_;
};

}  // namespace postern
