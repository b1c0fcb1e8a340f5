// Listening sockets: a port on all addresses, and a unix socket's file.
#pragma once

#include <sys/types.h>

#include <string>
#include <string_view>

#include "base/ip.hpp"
#include "base/result.hpp"

namespace postern {

// An owned, listening, non-blocking descriptor.
class ListeningSocket {
 public:
  ListeningSocket(int fd, int family) : fd_(fd), family_(family) {}
  ListeningSocket(ListeningSocket&& other) noexcept : fd_(other.release()), family_(other.family_) {}
  ListeningSocket& operator=(ListeningSocket&&) = delete;
  ~ListeningSocket();

  int fd() const { return fd_; }
  int family() const { return family_; }  // AF_INET, AF_INET6 or AF_UNIX
  int release();                          // the caller owns the descriptor from now on
  Port port() const;                      // as bound; 0 for AF_UNIX

 private:
  int fd_;
  int family_;
};

// TCP on all addresses, IPv4 and IPv6; IPv4 alone where the kernel has no IPv6. Port 0: any free one.
// `field` is the configuration's, for the error.
Result<ListeningSocket> listen_on_port(Port port, std::string_view field);

// A unix socket that only its owner may use (mode 0600 before it listens). A socket file that nobody serves any more is
// replaced; one that is served, or any other kind of file, is an error.
Result<ListeningSocket> listen_on_path(const std::string& path, std::string_view field);

// Removes the socket file at the end of its life, unless somebody has put another in its place.
class SocketFile {
 public:
  explicit SocketFile(std::string path);
  SocketFile(const SocketFile&) = delete;
  SocketFile& operator=(const SocketFile&) = delete;
  ~SocketFile();

 private:
  std::string path_;
  dev_t device_ = 0;
  ino_t inode_ = 0;
};

}  // namespace postern
