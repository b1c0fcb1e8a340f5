// Asks a running sidecar or control plane: one HTTP request over a unix socket or TCP, blocking.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace postern::cli {

struct AdminReply {
  int status = 0;
  std::string body;
};

// Waits 10 s at most for each part of the answer. Errors say what to do: no such socket, nobody serves it, not allowed.
Result<AdminReply> ask_sidecar(const std::string& socket_path, std::string_view method, std::string_view path, std::string_view body);

// Asks a replica of the control plane: `address` is the path of its admin socket (it has a '/'), or HOST:PORT of its health port.
Result<AdminReply> ask_control(const std::string& address, std::string_view method, std::string_view path);

// The answer's status and body. An answer that is cut short or is not HTTP is an error.
Result<AdminReply> parse_reply(std::string_view bytes);

}  // namespace postern::cli
