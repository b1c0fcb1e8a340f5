#include "cli/admin_client.hpp"

#include <netdb.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <system_error>
#include <vector>

#include "base/descriptor.hpp"

namespace postern::cli {
namespace {

constexpr std::size_t most_bytes = 256U << 20;
constexpr timeval patience{.tv_sec = 10, .tv_usec = 0};

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

Result<sockaddr_un> unix_address(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) return Error{"longer than the 107 bytes of a socket's path", path};
  std::copy(path.begin(), path.end(), address.sun_path);
  return address;
}

struct Endpoint {
  sockaddr_storage address{};
  socklen_t size = 0;
};

// Where HOST:PORT, [IPv6]:PORT or the path of a socket leads to.
Result<std::vector<Endpoint>> endpoints_of(const std::string& address) {
  std::vector<Endpoint> out;
  if (address.find('/') != std::string::npos) {
    const auto path = unix_address(address);
    if (!path) return path.error();
    Endpoint endpoint;
    std::memcpy(&endpoint.address, &*path, sizeof(*path));
    endpoint.size = sizeof(*path);
    return std::vector<Endpoint>{endpoint};
  }
  const auto colon = address.rfind(':');
  if (colon == std::string::npos || colon == 0) return Error{"expected HOST:PORT or the path of a socket", address};
  std::string host = address.substr(0, colon);
  if (host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int error = ::getaddrinfo(host.c_str(), address.substr(colon + 1).c_str(), &hints, &found); error != 0) {
    return Error{::gai_strerror(error), address};
  }
  for (const addrinfo* one = found; one != nullptr; one = one->ai_next) {
    Endpoint endpoint;
    std::memcpy(&endpoint.address, one->ai_addr, one->ai_addrlen);
    endpoint.size = one->ai_addrlen;
    out.push_back(endpoint);
  }
  ::freeaddrinfo(found);
  return out;
}

Error failed_control(const std::string& address, int error) {
  if (error == ECONNREFUSED) return {"nobody listens there; expected listen.health or listen.adminSocket of postern-control", address};
  if (error == EAGAIN || error == EWOULDBLOCK || error == EINPROGRESS) return {"no answer within 10 s", address};
  return {std::generic_category().message(error), address};
}

void set_patience(int socket) {
  ::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  ::setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
}

std::string request_text(std::string_view method, std::string_view path, std::string_view body) {
  std::string request = std::string(method) + " " + std::string(path) + " HTTP/1.1\r\nHost: postern\r\nConnection: close\r\n";
  request.append("Content-Length: ").append(std::to_string(body.size())).append("\r\n\r\n").append(body);
  return request;
}

// Sends the request and reads to the end. Returns an errno, or 0.
int exchange(int socket, const std::string& request, std::string& answer) {
  for (std::string_view rest = request; !rest.empty();) {
    const ssize_t n = ::send(socket, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (n < 0) return errno;
    rest.remove_prefix(static_cast<std::size_t>(n));
  }
  std::array<char, 16384> chunk;
  while (answer.size() < most_bytes) {
    const ssize_t n = ::recv(socket, chunk.data(), chunk.size(), 0);
    if (n < 0) return errno;
    if (n == 0) break;
    answer.append(chunk.data(), static_cast<std::size_t>(n));
  }
  return 0;
}

Result<AdminReply> reply_of(const std::string& answer, const std::string& where) {
  auto reply = parse_reply(answer);
  if (!reply) return Error{reply.error().message, where};
  return reply;
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
  const auto address = unix_address(socket_path);
  if (!address) return address.error();
  const Descriptor socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (socket.get() < 0) return failed(socket_path, errno);
  set_patience(socket.get());
  if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&*address), sizeof(*address)) != 0) return failed(socket_path, errno);
  std::string answer;
  if (const int error = exchange(socket.get(), request_text(method, path, body), answer); error != 0) return failed(socket_path, error);
  return reply_of(answer, socket_path);
}

Result<AdminReply> ask_control(const std::string& address, std::string_view method, std::string_view path) {
  std::string last = "no such address";
  auto candidates = endpoints_of(address);
  if (!candidates) return candidates.error();
  for (const Endpoint& candidate : *candidates) {
    const Descriptor socket(::socket(candidate.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (socket.get() < 0) return failed_control(address, errno);
    set_patience(socket.get());
    std::string answer;
    int error = ::connect(socket.get(), reinterpret_cast<const sockaddr*>(&candidate.address), candidate.size) == 0 ? 0 : errno;
    if (error == 0) error = exchange(socket.get(), request_text(method, path, ""), answer);
    if (error == 0) return reply_of(answer, address);
    last = failed_control(address, error).message;
  }
  return Error{last, address};
}

}  // namespace postern::cli
