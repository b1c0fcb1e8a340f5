// FileSource: an SvidSource over three PEM files, read again when their content changes: written in place, renamed over, or swapped
// by a symbolic link as Kubernetes does it for projected volumes ("..data").
#pragma once

#include <string>

#include "certs/svid_source.hpp"

namespace postern {

struct SvidFiles {
  std::string chain;  // leaf first, then intermediates
  std::string key;
  std::string bundle;  // authorities of the SVID's own trust domain
};

class FileSource final : public SvidSource {
 public:
  // Fails where inotify does, or a folder does not exist. The files themselves may come later: poll() says what is wrong.
  static Result<std::unique_ptr<FileSource>> make(SvidFiles files);
  ~FileSource() override;

  int fd() const override { return fd_; }
  std::optional<Result<X509ContextPtr>> poll() override;
  std::vector<std::string> take_warnings() override;

 private:
  explicit FileSource(SvidFiles files) : files_(std::move(files)) {}
  Result<void> watch();
  void drain_events();

  SvidFiles files_;
  int fd_ = -1;
  std::string seen_;  // hash of the content last read, good or bad
  std::vector<std::string> warnings_;
};

// Reads the three files once. Errors name the file and the problem; `now` must lie within the SVID's validity.
Result<X509ContextPtr> read_x509_context(const SvidFiles& files, SystemTime now, std::vector<std::string>& warnings);

}  // namespace postern
