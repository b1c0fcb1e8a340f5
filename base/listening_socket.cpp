#include "base/listening_socket.hpp"

#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <system_error>
#include <utility>

#include "base/sockaddr.hpp"

namespace postern {
namespace {

// As many as the kernel allows (net.core.somaxconn, 4096 where nobody changed it). What finds no room is not told so: its SYN is dropped,
// and comes again after 1, 3, 7, 15, 31 s, so that one storm of connections would last a minute.
constexpr int backlog = 65'535;
constexpr int socket_type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;

Error failed(std::string_view what, int error, std::string_view remedy = {}) {
  std::string message = std::string(what) + ": " + std::generic_category().message(error);
  if (!remedy.empty()) message.append("; ").append(remedy);
  return {std::move(message), {}};
}

sockaddr_un unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  return address;
}

template <class Address>
int bind_to(const ListeningSocket& socket, const Address& address) {
  return ::bind(socket.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
}

// Makes way for a new socket file: nothing there, or one left behind by a process that is gone.
Result<void> clear_stale(const std::string& path) {
  struct stat status {};
  if (::lstat(path.c_str(), &status) != 0) {
    if (errno == ENOENT) return {};
    return failed(path, errno);
  }
  if (!S_ISSOCK(status.st_mode)) return Error{path + ": exists and is not a socket; remove it or choose another path", {}};
  const ListeningSocket probe(::socket(AF_UNIX, socket_type, 0), AF_UNIX);
  const sockaddr_un address = unix_address(path);
  const int connected = ::connect(probe.fd(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  // EAGAIN: served, but with a full backlog.
  if (connected == 0 || errno == EAGAIN) return Error{path + ": another process serves this socket; choose another path", {}};
  if (errno != ECONNREFUSED) return failed(path, errno);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failed(path + ": cannot remove the stale socket", errno);
  return {};
}

std::optional<int> bind_any(const ListeningSocket& socket, Port port) {
  const int on = 1;
  const int off = 0;
  ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (socket.family() == AF_INET6) {
    ::setsockopt(socket.fd(), IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    sockaddr_in6 any{};
    any.sin6_family = AF_INET6;
    any.sin6_port = htons(port.number);
    if (bind_to(socket, any) != 0) return errno;
  } else {
    sockaddr_in any{};
    any.sin_family = AF_INET;
    any.sin_port = htons(port.number);
    if (bind_to(socket, any) != 0) return errno;
  }
  if (::listen(socket.fd(), backlog) != 0) return errno;
  return std::nullopt;
}

}  // namespace

ListeningSocket::~ListeningSocket() {
  if (fd_ >= 0) ::close(fd_);
}

int ListeningSocket::release() { return std::exchange(fd_, -1); }

Port ListeningSocket::port() const {
  if (family_ == AF_UNIX) return {};
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  ::getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
  return from_sockaddr(address).port;
}

Result<ListeningSocket> listen_on_port(Port port, std::string_view field) {
  int family = AF_INET6;
  int fd = ::socket(family, socket_type, 0);
  if (fd < 0 && errno == EAFNOSUPPORT) {
    family = AF_INET;
    fd = ::socket(family, socket_type, 0);
  }
  const std::string what = std::string(field) + ": port " + std::to_string(port.number);
  if (fd < 0) return failed(what, errno);
  ListeningSocket socket(fd, family);
  if (const auto error = bind_any(socket, port)) return failed(what, *error);
  return socket;
}

Result<ListeningSocket> listen_on_path(const std::string& path, std::string_view field) {
  const std::string what = std::string(field) + ": ";
  if (path.size() >= sizeof(sockaddr_un::sun_path)) return Error{what + path + ": longer than the 107 bytes of a socket's path", {}};
  auto cleared = clear_stale(path);
  if (!cleared) return Error{what + cleared.error().text(), {}};
  const int fd = ::socket(AF_UNIX, socket_type, 0);
  if (fd < 0) return failed(what + path, errno);
  ListeningSocket socket(fd, AF_UNIX);
  if (bind_to(socket, unix_address(path)) != 0) {
    return failed(what + path, errno, errno == ENOENT ? "create its folder first" : std::string_view{});
  }
  // Until it listens nobody can connect, so there is no moment in which others could.
  if (::chmod(path.c_str(), 0600) != 0 || ::listen(fd, backlog) != 0) {
    const int error = errno;
    ::unlink(path.c_str());
    return failed(what + path, error);
  }
  return socket;
}

SocketFile::SocketFile(std::string path) : path_(std::move(path)) {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0) {
    device_ = status.st_dev;
    inode_ = status.st_ino;
  }
}

SocketFile::~SocketFile() {
  struct stat status {};
  if (::lstat(path_.c_str(), &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) ::unlink(path_.c_str());
}

}  // namespace postern
