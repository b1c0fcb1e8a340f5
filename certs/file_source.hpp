// FileSource: an SvidSource over three PEM files, read again when their content changes.
#pragma once

#include <string>

#include "certs/svid_source.hpp"
#include "certs/watched_files.hpp"

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

  int fd() const override { return watched_.fd(); }
  std::optional<Result<X509ContextPtr>> poll() override;
  std::vector<std::string> take_warnings() override;
  std::string describe() const override { return "files: " + files_.chain; }

 private:
  FileSource(SvidFiles files, WatchedFiles watched) : files_(std::move(files)), watched_(std::move(watched)) {}

  SvidFiles files_;
  WatchedFiles watched_;
  std::string accepted_;    // digest of the content in force
  std::string last_error_;  // as last reported; empty after a good read
  std::vector<std::string> warnings_;
};

}  // namespace postern
