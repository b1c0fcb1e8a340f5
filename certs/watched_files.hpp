// WatchedFiles: files that are read again when they change: written in place, renamed over, or swapped by a symbolic link as Kubernetes
// does it for projected volumes ("..data"). By inotify; one thread at a time.
#pragma once

#include <string>
#include <vector>

#include "base/descriptor.hpp"
#include "base/result.hpp"

namespace postern {

class WatchedFiles {
 public:
  // Fails where inotify does, or a folder does not exist. The files themselves may come later.
  static Result<WatchedFiles> make(std::vector<std::string> paths);

  int fd() const { return fd_.get(); }  // readable: something has happened
  // Watches what the paths lead to now; watching something again changes nothing. Before each read.
  Result<void> renew();
  void drain() const;       // takes what has happened
  bool has_events() const;  // something has happened since

 private:
  WatchedFiles(std::vector<std::string> paths, Descriptor fd) : paths_(std::move(paths)), fd_(std::move(fd)) {}
  std::vector<std::string> paths_;
  Descriptor fd_;
};

}  // namespace postern
