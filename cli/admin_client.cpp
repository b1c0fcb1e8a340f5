#include "cli/admin_client.hpp"

#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <system_error>

namespace postern::cli {
namespace {

constexpr std::size_t most_bytes = 256U << 20;
constexpr timeval patience{.tv_sec = 10, .tv_usec = 0};

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

Error failed(const std::string& path, int error) {
  const std::string what = std::generic_category().message(error);
  if (error == ENOENT) {
    return {what + "; is postern-proxy running here, with listen.adminSocket set? --socket or POSTERN_ADMIN_SOCKET names another path",
            path};
  }
  if (error == ECONNREFUSED) return {"nobody serves this socket; the postern-proxy that made it is gone", path};
  if (error == EACCES || error == EPERM) return {what + "; the socket belongs to the sidecar's user: run as that user or as root", path};
  if (error == EAGAIN || error == EWOULDBLOCK) return {"no answer within 10 s; the sidecar is stuck or stopped", path};
  return {what, path};
}

template <class T>
bool read_number(std::string_view text, T& number) {
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), number);
  return ec == std::errc{} && end == text.data() + text.size();
}

}  // namespace

Result<AdminReply> parse_reply(std::string_view bytes) {
  const Error malformed{"the answer is not that of a sidecar's admin socket", ""};
  constexpr std::string_view version = "HTTP/1.1 ";
  constexpr std::string_view length_name = "\r\ncontent-length: ";
  const auto end = bytes.find("\r\n\r\n");
  if (end == std::string_view::npos || !bytes.starts_with(version)) return malformed;
  AdminReply reply;
  if (!read_number(bytes.substr(version.size(), 3), reply.status)) return malformed;

  std::string header(bytes.substr(0, end + 2));
  std::transform(header.begin(), header.end(), header.begin(),
                 [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; });
  const auto at = header.find(length_name);
  if (at == std::string::npos) return malformed;
  const auto from = at + length_name.size();
  std::size_t length = 0;
  if (!read_number(std::string_view(header).substr(from, header.find("\r\n", from) - from), length)) return malformed;
  const std::string_view body = bytes.substr(end + 4);
  if (body.size() != length) return Error{"the answer was cut short", ""};
  reply.body = body;
  return reply;
}

Result<AdminReply> ask_sidecar(const std::string& socket_path, std::string_view method, std::string_view path, std::string_view body) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (socket_path.size() >= sizeof(address.sun_path)) return Error{"longer than the 107 bytes of a socket's path", socket_path};
  std::copy(socket_path.begin(), socket_path.end(), address.sun_path);
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return failed(socket_path, errno);
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) return failed(socket_path, errno);

  std::string request = std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: sidecar\r\nConnection: close\r\n";
  request.append("Content-Length: ").append(std::to_string(body.size())).append("\r\n\r\n").append(body);
  for (std::string_view rest = request; !rest.empty();) {
    const ssize_t n = ::send(socket.get(), rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0) return failed(socket_path, errno);
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  std::string answer;
  std::array<char, 16384> chunk;
  while (answer.size() < most_bytes) {
    const ssize_t n = ::recv(socket.get(), chunk.data(), chunk.size(), 0);
    if (n < 0) return failed(socket_path, errno);
    if (n == 0) break;
    answer.append(chunk.data(), static_cast<std::size_t>(n));
  }
  auto reply = parse_reply(answer);
  if (!reply) return Error{reply.error().message, socket_path};
  return reply;
}

}  // namespace postern::cli
