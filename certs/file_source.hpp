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
  std::string describe() const override { return "files: " + files_.chain; }

 private:
  explicit FileSource(SvidFiles files) : files_(std::move(files)) {}
  Result<void> watch();
  void drain_events() const;
  bool has_events() const;

  SvidFiles files_;
  int fd_ = -1;
  std::string accepted_;    // digest of the content in force
  std::string last_error_;  // as last reported; empty after a good read
  std::vector<std::string> warnings_;
};

}  // namespace postern
